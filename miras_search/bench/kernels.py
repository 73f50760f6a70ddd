"""How fast each implementation runs a memory by itself, over lengths, widths and numbers of memories.

Nothing but the memory is timed: no projections, no optimiser, no data. Those that run a point (contenders.py) take
turns, so that a busy machine slows all alike, and medians are compared, beside two floors of the time (floors.py). What
does not run is listed with its reason; and so is what gives other outputs or gradients than the torch path, since the
time of a wrong answer says nothing.

Needs torch alone (and Triton on a GPU): python -m miras_search.bench.kernels
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from miras_search.bench.clock import seconds_of
from miras_search.bench.contenders import Contender, contenders
from miras_search.bench.floors import Floors, Rates
from miras_search.bench.memory import Memory
from miras_search.bench.report import aligned, numbers
from miras_search.kernels.dispatch import Setting
from miras_search.space.design import DesignPoint
from miras_search.space.fields import Plain
from miras_search.training.device import resolve, settled
from miras_search.training.first_steps import TOLERANCE, differences

DESIGNS: dict[str, Mapping[str, object]] = {
    "linear_attention": {"preset": "linear_attention"},
    "retnet": {"preset": "retnet"},
    "delta_net": {"preset": "delta_net"},
    "delta_net frozen": {"preset": "delta_net", "execution": {"gradient": "frozen"}},
    "delta_net refined(4)": {"preset": "delta_net", "execution": {"gradient": {"refined": 4}}},
    "huber refined(4)": {"preset": "delta_net", "bias": "huber", "execution": {"gradient": {"refined": 4}}},
    "gated_delta_net": {"preset": "gated_delta_net"},
    "yaad": {"preset": "yaad"},
}
WARMUP = 2  # runs before the first that counts: kernels compile, allocators fill
HEADS = 4  # of a sequence, where they divide the number of memories
REFERENCE = "chunkwise"

Precision = Literal["float32", "bfloat16"]
Work = Callable[[], object]
Times = dict[tuple[str, str], float]  # of a contender, forward_ms or training_ms: seconds


class Grid(NamedTuple):
    """The shapes that are run: every combination."""

    tokens: tuple[int, ...]
    widths: tuple[int, ...]
    """Both of keys and of values."""
    memories: tuple[int, ...]
    """Sequences times heads."""


GRIDS = {
    "cuda": Grid((256, 512, 1024, 2048, 4096, 8192), (32, 64, 128), (16, 64, 512)),
    "cpu": Grid((128,), (16,), (16,)),
}


def run(
    *,
    designs: Mapping[str, Mapping[str, object]] = DESIGNS,
    device: str = "auto",
    threads: int | None = 1,
    rounds: int = 5,
    tokens: Sequence[int] = (),
    widths: Sequence[int] = (),
    memories: Sequence[int] = (),
    precision: Precision = "float32",
    compile_chunks: bool = False,
) -> dict[str, Plain]:
    """Measure each design in each shape by each contender: plain data with one row of the three.

    What is empty of the shapes is the device's grid. Times are medians over `rounds` in milliseconds: `forward_ms`
    without gradients, `training_ms` forward and backward; null where there is a reason in `refused`. `of_floor` is the
    larger floor over `training_ms`, and `times_chunkwise` and `times_fla` how many times faster than those the row is.
    Chunkwise torch is compiled too where `compile_chunks` says so, which takes a minute a shape.
    Raises `SpecError` for a design that is not valid, `EnvironmentProblem` for a device that is not there.
    """
    where = resolve(device)
    usual = GRIDS[where.type]
    grid = Grid(tuple(tokens) or usual.tokens, tuple(widths) or usual.widths, tuple(memories) or usual.memories)
    rows: list[Plain] = []
    with settled(where, threads):
        rates = Rates.of(where, getattr(torch, precision))
        able = contenders(compile_chunks=compile_chunks)
        for (name, spec), *shape in itertools.product(designs.items(), *grid):
            if compile_chunks:
                torch.compiler.reset()  # or it gives up after eight shapes, and runs them as they are
            rows += _measure(name, DesignPoint.parse(spec, (name,)), where, rounds, shape, precision, able, rates)
        used = torch.get_num_threads()
    return {
        "benchmark": "kernels",
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "threads": used,
        "torch": torch.__version__,
        "precision": precision,
        "gigabytes_per_second": rates.bandwidth / 1e9,
        "gflop_per_second": rates.products / 1e9,
        "rows": rows,
    }


def _measure(
    name: str,
    point: DesignPoint,
    device: torch.device,
    rounds: int,
    shape: Sequence[int],
    precision: Precision,
    all_of_them: Sequence[Contender],
    rates: Rates,
) -> list[Plain]:
    tokens, width, memories = shape
    heads = HEADS if memories % HEADS == 0 else 1
    dtype: torch.dtype = getattr(torch, precision)
    memory = Memory(point, device, (memories // heads, tokens, heads, width), dtype)
    setting = Setting(device.type, dtype, width, width)
    refused = {one.name: one.refuses(point, setting, tokens) for one in all_of_them}
    able = {one.name: one for one in all_of_them if refused[one.name] is None}
    refused |= _wrong(memory, able, TOLERANCE[precision])
    able = {name: one for name, one in able.items() if refused[name] is None}
    times, failed = _times(memory, list(able.values()), device, rounds)
    refused |= failed
    floors = Floors.of(memory, rates)
    rows: list[Plain] = []
    for one in all_of_them:
        forward, training = (times.get((one.name, kind)) for kind in ("forward_ms", "training_ms"))
        rows.append(
            {
                "design": name,
                "tokens": tokens,
                "width": width,
                "memories": memories,
                "implementation": one.name,
                "refused": refused[one.name],
                "forward_ms": None if forward is None else 1e3 * forward,
                "training_ms": None if training is None else 1e3 * training,
                "floor_ms": 1e3 * floors.training,
                "of_floor": None if training is None else floors.training / training,
                "tokens_per_second": None if training is None else memories // heads * tokens / training,
                "times_chunkwise": _ratio(times.get((REFERENCE, "training_ms")), training),
                "times_fla": _ratio(times.get(("fla", "training_ms")), training),
            }
        )
    return rows


def _ratio(other: float | None, own: float | None) -> float | None:
    return None if other is None or own is None else other / own


def _found(memory: Memory, one: Contender) -> dict[str, Tensor]:
    with one.within():
        return {"y": memory.forward(one.run), **memory.train(one.run)}


def _wrong(memory: Memory, able: Mapping[str, Contender], tolerance: float) -> dict[str, str | None]:
    """By name why a contender is not timed: what it gives is off, or it fails."""
    try:
        expected = _found(memory, able[REFERENCE])
    except Exception as error:
        return dict.fromkeys(able, f"{_failure(error)}: in {REFERENCE}, which all are compared with")
    return {name: _off(memory, one, expected, tolerance) for name, one in able.items()}


def _off(memory: Memory, one: Contender, expected: Mapping[str, Tensor], tolerance: float) -> str | None:
    if one.name == REFERENCE:
        return None
    try:
        off = differences(_found(memory, one), expected)
    except Exception as error:
        return _failure(error)
    if not off:
        return f"{REFERENCE} torch, which all are compared with, finds numbers that are not finite"
    name = max(off, key=lambda name: off[name])
    if off[name] <= tolerance:
        return None
    what = name if name == "y" else f"gradient of {name}"
    return f"its {what} is off {REFERENCE} torch's by {off[name]:.2g} of its RMS"


def _failure(error: Exception) -> str:
    """One line. Compilers, autotuners and others' libraries raise what they like, and one shape of many must not end
    hours of measuring.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:200]}" if said else type(error).__name__


def _times(
    memory: Memory, able: Sequence[Contender], device: torch.device, rounds: int
) -> tuple[Times, dict[str, str | None]]:
    """Medians, and why others have none; all take turns."""
    work: dict[tuple[str, str], Work] = {}
    for one in able:
        work[one.name, "forward_ms"] = partial(memory.forward, one.run)
        work[one.name, "training_ms"] = partial(memory.train, one.run)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in work}
    held = {one.name: one.within for one in able}
    failed: dict[str, str | None] = {}
    for turn in range(WARMUP + rounds):
        for key, piece in work.items():
            if key[0] in failed:
                continue
            try:
                with held[key[0]]():
                    seconds = seconds_of(device, [piece])
            except Exception as error:
                failed[key[0]] = _failure(error)
                continue
            if turn >= WARMUP:
                times[key].append(seconds)
    return {key: statistics.median(found) for key, found in times.items() if key[0] not in failed}, failed


COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("design", "design", "s"),
    ("implementation", "implementation", "s"),
    ("tokens", "T", "d"),
    ("width", "D", "d"),
    ("memories", "B*H", "d"),
    ("forward_ms", "forward ms", ".2f"),
    ("training_ms", "with backward ms", ".2f"),
    ("tokens_per_second", "tokens/s", ",.0f"),
    ("of_floor", "of floor", ".0%"),
    ("times_chunkwise", "x chunkwise", ".2f"),
    ("times_fla", "x fla", ".2f"),
)


def table(result: Mapping[str, Plain]) -> str:
    """The result of `run` as text: a line on the setting, a line a measurement, then why others did not run."""
    rows = result["rows"]
    assert isinstance(rows, list)
    reasons: dict[str, dict[str, None]] = {}
    ran: list[Plain] = []
    for row in rows:
        assert isinstance(row, dict)
        if row["refused"] is None:
            ran.append(row)
        else:
            reasons.setdefault(f"not {row['implementation']}: {row['refused']}", {})[str(row["design"])] = None
    columns = [one for one in COLUMNS if any(isinstance(row, dict) and row[one[0]] is not None for row in ran)]
    setting = (
        f"{result['device']}, {result['threads']} threads, torch {result['torch']}, {result['precision']}: "
        f"copies {result['gigabytes_per_second']:,.0f} GB/s, products {result['gflop_per_second']:,.0f} GFLOP/s"
    )
    why = [f"{reason}: {', '.join(names)}" for reason, names in reasons.items()]
    return "\n".join([setting, *aligned(ran, columns, left=2), "", *why])


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this one benchmark."""
    parser = argparse.ArgumentParser(prog="python -m miras_search.bench.kernels")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, whose median is taken")
    parser.add_argument("--tokens", metavar="N,N", help="tokens in a sequence")
    parser.add_argument("--width", metavar="N,N", help="key and value dimension of a memory")
    parser.add_argument("--memories", metavar="N,N", help="memories at once: sequences times heads")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of q, k and v")
    parser.add_argument("--compile", action="store_true", help="chunkwise torch compiled too: a minute a shape")
    parser.add_argument("--only", choices=list(DESIGNS), action="append", help="this design; may be repeated")
    parser.add_argument("--json", action="store_true", help="print the data instead of the table")
    chosen = parser.parse_args(argv)
    result = run(
        designs={name: DESIGNS[name] for name in chosen.only or DESIGNS},
        device=chosen.device,
        threads=chosen.threads,
        rounds=chosen.rounds,
        tokens=numbers("--tokens", chosen.tokens),
        widths=numbers("--width", chosen.width),
        memories=numbers("--memories", chosen.memories),
        precision=chosen.precision,
        compile_chunks=chosen.compile,
    )
    print(json.dumps(result) if chosen.json else table(result))


if __name__ == "__main__":
    main()
