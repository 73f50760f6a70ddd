"""What chunks buy: a memory in the implementation that a model would take, against the token loop of its definition.

Forward and backward at 512 tokens, batch 8, 2 heads of 32, chunk 64; beside them the chunks as one compiled function,
and the matrix products of the chunked form alone. All take turns, and medians are compared. Freed memory is kept, as in
a training: without that the token loop spends a sixth of its time on page faults.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial

import torch

from miras_search.bench.clock import seconds_of
from miras_search.bench.memory import Memory
from miras_search.bench.products import Products, replay
from miras_search.bench.report import aligned
from miras_search.kernels import dispatch, recurrence
from miras_search.space.design import DesignPoint
from miras_search.space.fields import Plain
from miras_search.training.compiled import NAME
from miras_search.training.device import keep_freed_memory, resolve, settled

DESIGNS: dict[str, Mapping[str, object]] = {
    "matrix exact": {"preset": "delta_net", "execution": {"chunk": 64}},
    "matrix refined(4)": {"preset": "delta_net", "execution": {"chunk": 64, "gradient": {"refined": 4}}},
    "mlp frozen": {"memory": "mlp", "step": {"value": 0.1}, "execution": {"chunk": 64, "gradient": "frozen"}},
}


def run(
    *,
    designs: Mapping[str, Mapping[str, object]] = DESIGNS,
    device: str = "auto",
    threads: int | None = 1,
    rounds: int = 5,
    tokens: int = 512,
    batch: int = 8,
    heads: int = 2,
    width: int = 32,
    compiles: bool = False,
) -> dict[str, Plain]:
    """Measure each design: plain data with one row a design, times in milliseconds, medians over `rounds`; chunks made
    into machine code too where `compiles` says so.
    """
    where = resolve(device)
    keep_freed_memory()
    rows: list[Plain] = []
    with settled(where, threads):
        for name, spec in designs.items():
            memory = Memory(DesignPoint.parse(spec, (name,)), where, (batch, tokens, heads, width))
            rows.append({"name": name, **_measure(memory, where, rounds, compiles=compiles)})
    return {"batch": batch, "tokens": tokens, "heads": heads, "width": width, "rows": rows}


def _measure(memory: Memory, device: torch.device, rounds: int, *, compiles: bool) -> dict[str, Plain]:
    memory.train(dispatch.run)
    with Products() as products:
        memory.train(dispatch.run)
    work: dict[str, Callable[[], object]] = {
        "loop_ms": partial(memory.train, recurrence.run),
        "chunks_ms": partial(memory.train, dispatch.run),
        "products_ms": partial(replay, products.calls()),
    }
    if compiles:
        whole = memory.compiled(dispatch.run)
        with dispatch.watched() as ran:
            whole()
        if NAME in ran:  # else it could not be
            work["compiled_ms"] = whole
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, piece in work.items():
            repeats = 1 if name == "loop_ms" else 5  # short pieces are noisy
            times[name] += [seconds_of(device, [piece]) for _ in range(repeats)]
    found = {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}
    made = found.get("compiled_ms")
    return {
        **found,
        "times_faster": found["loop_ms"] / found["chunks_ms"],
        "share_of_products": found["products_ms"] / found["chunks_ms"],
        "compiled_ms": made,
        "compiled_times_faster": None if made is None else found["loop_ms"] / made,
        "compiled_share_of_products": None if made is None else found["products_ms"] / made,
    }


COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("name", "memory", "s"),
    ("loop_ms", "token loop ms", ".1f"),
    ("chunks_ms", "chunks ms", ".1f"),
    ("times_faster", "x faster", ".1f"),
    ("products_ms", "products ms", ".1f"),
    ("share_of_products", "products' share", ".0%"),
    ("compiled_ms", "compiled ms", ".1f"),
    ("compiled_times_faster", "x faster", ".1f"),
    ("compiled_share_of_products", "products' share", ".0%"),
)


def table(result: Mapping[str, Plain]) -> str:
    """The result of `run` as text."""
    rows = result["rows"]
    assert isinstance(rows, list)
    body = aligned(rows, COLUMNS)
    setting = (
        f"the memory alone, forward and backward: batch {result['batch']}, {result['tokens']} tokens, "
        f"{result['heads']} heads of width {result['width']}"
    )
    return "\n".join([setting, *body])
