"""How fast each implementation runs a memory by itself: the recurrence, chunkwise torch, Triton on a GPU.

Nothing but the memory is timed: no projections, no optimiser, no data. The implementations take turns, so that a busy
machine slows all alike, and medians are compared. One that cannot run a design is listed with its reason.

Needs torch alone (and Triton on a GPU): python -m miras_search.bench.kernels
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from miras_search.bench.clock import seconds_of
from miras_search.bench.memory import Memory
from miras_search.bench.report import aligned
from miras_search.kernels.dispatch import IMPLEMENTATIONS, Setting
from miras_search.space.design import DesignPoint
from miras_search.space.fields import Plain
from miras_search.training.device import resolve, settled

DESIGNS: dict[str, Mapping[str, object]] = {
    "linear_attention": {"preset": "linear_attention"},
    "delta_net": {"preset": "delta_net"},
    "delta_net frozen": {"preset": "delta_net", "execution": {"gradient": "frozen"}},
    "delta_net refined(4)": {"preset": "delta_net", "execution": {"gradient": {"refined": 4}}},
    "huber refined(4)": {"preset": "delta_net", "bias": "huber", "execution": {"gradient": {"refined": 4}}},
    "gated_delta_net": {"preset": "gated_delta_net"},
    "yaad": {"preset": "yaad"},
}
WARMUP = 2  # runs before the first that counts: kernels compile, allocators fill

Work = Callable[[], object]


def run(
    *,
    designs: Mapping[str, Mapping[str, object]] = DESIGNS,
    device: str = "auto",
    threads: int | None = 1,
    rounds: int = 5,
    tokens: int = 128,
    batch: int = 8,
    heads: int = 2,
    width: int = 16,
) -> dict[str, Plain]:
    """Measure each design in each implementation: plain data with one row a pair.

    `width` is both the key and the value dimension. Times are medians over `rounds` in milliseconds: `forward_ms`
    without gradients, `training_ms` forward and backward; null where the implementation gives a `refused` reason.
    Raises `SpecError` for a design that is not valid, `EnvironmentProblem` for a device that is not there.
    """
    where = resolve(device)
    rows: list[Plain] = []
    with settled(where, threads):
        for name, spec in designs.items():
            point = DesignPoint.parse(spec, (name,))
            rows += _measure(name, point, where, rounds, (batch, tokens, heads, width))
        used = torch.get_num_threads()
    return {
        "benchmark": "kernels",
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "threads": used,
        "torch": torch.__version__,
        "batch": batch,
        "tokens": tokens,
        "heads": heads,
        "width": width,
        "rows": rows,
    }


def _measure(
    name: str, point: DesignPoint, device: torch.device, rounds: int, shape: tuple[int, int, int, int]
) -> list[Plain]:
    batch, tokens, _, width = shape
    setting = Setting(device.type, torch.float32, width, width)
    reasons = {one.name: one.refuses(point, setting) for one in IMPLEMENTATIONS}
    able = [one for one in IMPLEMENTATIONS if reasons[one.name] is None]
    memory = Memory(point, device, shape)
    work: dict[tuple[str, str], Work] = {}
    for one in able:
        work[one.name, "forward_ms"] = partial(memory.forward, one.run)
        work[one.name, "training_ms"] = partial(memory.train, one.run)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in work}
    for turn in range(WARMUP + rounds):
        for key, piece in work.items():
            seconds = seconds_of(device, [piece])
            if turn >= WARMUP:
                times[key].append(seconds)
    medians = {key: statistics.median(found) for key, found in times.items()}
    rows: list[Plain] = []
    for one in IMPLEMENTATIONS:
        row: dict[str, Plain] = {"design": name, "implementation": one.name, "refused": reasons[one.name]}
        for kind in ("forward_ms", "training_ms"):
            row[kind] = 1e3 * medians[one.name, kind] if (one.name, kind) in medians else None
        found = medians.get((one.name, "training_ms"))
        row["tokens_per_second"] = None if found is None else batch * tokens / found
        rows.append(row)
    return rows


COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("design", "design", "s"),
    ("implementation", "implementation", "s"),
    ("forward_ms", "forward ms", ".2f"),
    ("training_ms", "with backward ms", ".2f"),
    ("tokens_per_second", "tokens/s", ",.0f"),
)


def table(result: Mapping[str, Plain]) -> str:
    """The result of `run` as text: a line on the setting, a line a measurement, then why others did not run."""
    rows = result["rows"]
    assert isinstance(rows, list)
    reasons: dict[str, list[str]] = {}
    ran: list[Plain] = []
    for row in rows:
        assert isinstance(row, dict)
        if row["refused"] is None:
            ran.append(row)
        else:
            reasons.setdefault(f"not {row['implementation']}: {row['refused']}", []).append(str(row["design"]))
    body = aligned(ran, COLUMNS, left=2)
    setting = (
        f"{result['device']}, {result['threads']} threads, torch {result['torch']}: batch {result['batch']}, "
        f"{result['tokens']} tokens, {result['heads']} heads of width {result['width']}"
    )
    return "\n".join([setting, *body, "", *(f"{reason}: {', '.join(names)}" for reason, names in reasons.items())])


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this one benchmark."""
    parser = argparse.ArgumentParser(prog="python -m miras_search.bench.kernels")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, whose median is taken")
    parser.add_argument("--tokens", type=int, default=128, help="tokens in a sequence")
    parser.add_argument("--batch", type=int, default=8, help="sequences")
    parser.add_argument("--width", type=int, default=16, help="key and value dimension of a head")
    parser.add_argument("--only", choices=list(DESIGNS), action="append", help="this design; may be repeated")
    parser.add_argument("--json", action="store_true", help="print the data instead of the table")
    chosen = parser.parse_args(argv)
    result = run(
        designs={name: DESIGNS[name] for name in chosen.only or DESIGNS},
        device=chosen.device,
        threads=chosen.threads,
        rounds=chosen.rounds,
        tokens=chosen.tokens,
        batch=chosen.batch,
        width=chosen.width,
    )
    print(json.dumps(result) if chosen.json else table(result))


if __name__ == "__main__":
    main()
