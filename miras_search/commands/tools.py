"""The verbs around the studies: `dashboard`, `doctor` and `bench`."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import typer

from miras_search.commands.common import (
    DbOption,
    JsonOption,
    database_setting,
    emit,
    note,
    open_database,
    say,
)
from miras_search.errors import EnvironmentProblem, MirasError

bench = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="How fast things are on this machine.")

DeviceOption = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N.")]
ThreadsOption = Annotated[int, typer.Option(min=1, metavar="N", help="Torch's threads.")]
OnlyOption = Annotated[list[str] | None, typer.Option(metavar="DESIGN", help="This design. Repeatable.")]


def dashboard(
    db: DbOption = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="The port to listen on.")] = 8501,
) -> None:
    """Serve the database as a web page; Ctrl-C ends it."""
    from miras_search.dashboard.launch import command

    open_database(db).close()  # a missing or newer database is told here, not on a web page
    argv, environment = command(database_setting(db).value, host, port)
    _check_port(host, port)
    note(f"http://{host}:{port} (Ctrl-C ends it)")
    os.execve(argv[0], argv, environment)  # it takes this process over: signals reach it, and nothing is left behind


def _check_port(host: str, port: int) -> None:
    """Raise EnvironmentProblem where nothing can listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just left is free
            probe.bind(address)
    except OSError as error:
        cure = "take another with --port" if error.errno == errno.EADDRINUSE else "name an address of this machine"
        raise EnvironmentProblem(f"{host}:{port}: cannot listen there: {error.strerror}: {cure}") from error


def doctor(
    db: DbOption = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A Ray cluster; else MIRAS_RAY_ADDRESS.")
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Start Ray, or join the cluster, and leave again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Whether this machine is ready, with remedies.

    Versions, database, Ray, GPUs, Triton, disk.
    """
    from miras_search.commands.run import ray_address
    from miras_search.doctor import diagnose

    setting = database_setting(db)
    checks = diagnose(
        database=setting.value, source=setting.source, address=ray_address(address, "auto"), start_ray=ray
    )
    if as_json:
        emit({"checks": checks, "ok": all(check.level != "problem" for check in checks)})
    else:
        for check in checks:
            say(f"{check.level:8} {check.name:9} {check.found}")
            if check.remedy:
                say(f"{'':18} -> {check.remedy}")
    if any(check.level == "problem" for check in checks):
        raise typer.Exit(3)


@bench.command("training")
def bench_training(
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    blocks: Annotated[int, typer.Option(min=1, metavar="N", help="Blocks of steps, whose median is taken.")] = 7,
    only: OnlyOption = None,
    pack: Annotated[
        str | None, typer.Option(metavar="N,N", help="Compare packs of these sizes with one process a training.")
    ] = None,
    processes: Annotated[
        str | None, typer.Option(metavar="N,N", help="With --pack: and with so many processes on one device.")
    ] = None,
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="The compiled step too: by default on a CPU with a compiler."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time a training step of a few designs, beside its matrix products alone.

    With --pack: trainings an hour of one design, packed and not.
    """
    if pack is not None:
        _bench_packing(pack, processes, device, threads, as_json)
        return
    from miras_search.bench import training

    designs = _chosen(only, training.DESIGNS)
    result = training.run(
        designs=designs,
        device=device,
        threads=threads,
        blocks=blocks,
        against_loop=not only,
        compiles=compiled,
    )
    if as_json:
        emit(result)
    else:
        say(training.table(result))


def _bench_packing(pack: str, processes: str | None, device: str, threads: int, as_json: bool) -> None:
    """What `bench training --pack` prints."""
    import torch

    from miras_search.bench import packing
    from miras_search.bench.report import numbers

    shared = "4,8" if device != "cpu" and torch.cuda.is_available() else ""  # on a CPU a core a process is the rule
    result = packing.run(
        packs=numbers("--pack", pack),
        processes=numbers("--processes", shared if processes is None else processes),
        device=device,
        threads=threads,
    )
    if as_json:
        emit(result)
    else:
        say(packing.table(result))


@bench.command("kernels")
def bench_kernels(
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Runs of each, whose median is taken.")] = 5,
    tokens: Annotated[str | None, typer.Option(metavar="N,N", help="Tokens in a sequence.")] = None,
    width: Annotated[str | None, typer.Option(metavar="N,N", help="Key and value dimension of a memory.")] = None,
    memories: Annotated[
        str | None, typer.Option(metavar="N,N", help="Memories at once: sequences times heads.")
    ] = None,
    precision: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Of queries, keys and values.")] = "float32",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Chunkwise torch compiled too: a minute a shape.")
    ] = False,
    only: OnlyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time the memory alone in every implementation that runs it.

    Over every combination of lengths, widths and numbers of memories; without them over the device's own grid.
    """
    from miras_search.bench import kernels
    from miras_search.bench.report import numbers

    result = kernels.run(
        designs=_chosen(only, kernels.DESIGNS),
        device=device,
        threads=threads,
        rounds=rounds,
        tokens=numbers("--tokens", tokens),
        widths=numbers("--width", width),
        memories=numbers("--memories", memories),
        precision=precision,
        compile_chunks=compiled,
    )
    if as_json:
        emit(result)
    else:
        say(kernels.table(result))


@bench.command("statistics")
def bench_statistics(
    studies: Annotated[
        int, typer.Option(min=1, metavar="N", help="Null studies a setting; 8000 for the record.")
    ] = 200,
    start: Annotated[int, typer.Option(min=0, metavar="N", help="The simulation's seed.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """How often the statistics err: family-wise error, coverage, power.

    Studies without an effect, from a surrogate trainer, go through selection, test and top-up.
    """
    from miras_search.bench import statistics

    result = statistics.run(studies=studies, start=start)
    if as_json:
        emit(result)
    else:
        say(statistics.table(result))


def _chosen(
    names: Sequence[str] | None, designs: Mapping[str, Mapping[str, object]]
) -> Mapping[str, Mapping[str, object]]:
    """The designs of those names, or all. Raises MirasError for a name that is none."""
    for name in names or ():
        if name not in designs:
            raise MirasError(f"--only {name}: no such design: take {', '.join(designs)}")
    return {name: designs[name] for name in names} if names else designs
