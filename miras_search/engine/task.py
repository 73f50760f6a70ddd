"""Running one task (a job, or a pack of them) inside a worker process, the same for every executor.

Whatever a job raises becomes a `Failed` message with its traceback as text: an exception that cannot be pickled must
not take the worker down with it.
"""

from __future__ import annotations

import importlib
import os
import platform
import secrets
import socket
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, cast

import miras_search
from miras_search.engine import hardware
from miras_search.engine.messages import (
    Context,
    Entry,
    Failed,
    Finished,
    Points,
    Row,
    Saved,
    Send,
    Started,
    Stopped,
    Task,
)
from miras_search.errors import MirasError
from miras_search.space import plugins
from miras_search.tasks import files_hash, task_from_spec
from miras_search.training.job import Cancelled, Keep

TEXT_LIMIT = 20_000  # characters of a traceback; its end is the part that tells


@cache
def versions() -> dict[str, str]:
    """What decides the numbers of a training here; a worker whose versions differ from the driver's is refused."""
    found = {"python": platform.python_version(), "miras-search": miras_search.__version__}
    for name in ("torch", "triton"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def load(entry: str) -> Entry:
    """The function of a `module:function` name. Raises ImportError or AttributeError."""
    module, _, name = entry.partition(":")
    function: Entry = getattr(importlib.import_module(module), name)
    return function


def run_task(ticket: int, task: Task, send: Send) -> list[Finished] | list[Stopped] | list[Failed]:
    """Run a task, sending `Started` and `Points` on the way; returns how each of its jobs ended.

    A pack that raises fails as one: whichever of its jobs it was, the process is of no more use to the others.
    """
    tickets = range(ticket, ticket + len(task.jobs))
    host, pid, here = socket.gethostname(), os.getpid(), versions()
    send([Started(one, host, pid, hardware.named(task.device), here) for one in tickets])

    def report(rows: Sequence[Sequence[Row]]) -> bool:
        found = [Points(one, tuple(new)) for one, new in zip(tickets, rows, strict=True) if new]
        return send(found or [Points(ticket, ())])  # no points: a sign of life

    def save(data: bytes) -> None:
        send([Saved(ticket, data)])

    keep = None
    if task.save_every is not None and len(task.jobs) == 1:
        keep = Keep(save, task.save_every, task.resume)

    # the parameters travel as bytes: a worker on another machine has no folder in common with the driver. Nothing is
    # made here before the training is done, so a worker that is killed leaves nothing behind.
    stem = Path(tempfile.gettempdir(), f"miras-search-{secrets.token_hex(8)}")
    paths = [stem.with_name(f"{stem.name}-{i}.safetensors") if task.checkpoint else None for i in range(len(tickets))]
    try:
        plugins.use(task.plugins)
        _check_files(task)
        outcomes = load(task.entry)(
            task.jobs, Context(report, tuple(paths), task.device, task.threads, keep, task.kernels, task.trained)
        )
        return [
            Finished(one, outcome, path.read_bytes() if path is not None and path.exists() else None)
            for one, outcome, path in zip(tickets, outcomes, paths, strict=True)
        ]
    except Cancelled as error:
        return [Stopped(one, str(error)) for one in tickets]
    except Exception as error:  # the process boundary: every kind of failure becomes a row
        text = traceback.format_exc()[-TEXT_LIMIT:]
        state: Literal["oom", "failed"] = "oom" if _out_of_memory(error) else "failed"
        return [Failed(one, state, type(error).__name__, text) for one in tickets]
    finally:
        for path in paths:
            if path is not None:
                path.unlink(missing_ok=True)


def _check_files(task: Task) -> None:
    """Raise MirasError where a job's task reads other files here than its driver did."""
    for data, hash_ in zip(task.jobs, task.corpora, strict=False):  # none are given for jobs that are no study's
        if hash_ is None:
            continue
        spec = cast(Mapping[str, object], data["task"])
        found = files_hash(task_from_spec(spec))
        if found != hash_:
            raise MirasError(
                f"task {spec['name']}: its files on {socket.gethostname()} are not those that the run began with "
                f"(sha256 {str(found)[:12]} here, {hash_[:12]} there): give every machine the same ones, and leave them"
            )


def _out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. By name: `torch.OutOfMemoryError` must not cost an import of torch."""
    by_torch = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator: can't allocate" in str(error)
    return isinstance(error, MemoryError) or by_torch
