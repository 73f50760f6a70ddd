"""How fast small models train, and how far that is from the matrix products alone.

For each design point: the time of a whole training step (batch made, forward, backward, optimiser) at the sizes of
the quickstart study, beside a floor measured on the same device in the same minute: the matrix products of that very
step, with their shapes and layouts, and nothing else. What lies between is operators that are not products, memory
traffic and Python. On a CPU also the step of `resources.kernels: compiled`, beside the same floor. Below, memories by
themselves in chunks against the token loop of their definition (loop.py).

Blocks of steps and of floors take turns, and medians are compared, so that a busy machine slows both alike. Products
inside a Triton kernel or a triangular solve are not seen and not in the floor.

Needs torch alone (and Triton on a GPU): python -m miras_search.bench.training
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from functools import partial

import torch

from miras_search import compiler
from miras_search.bench import loop
from miras_search.bench.clock import seconds_of
from miras_search.bench.products import Products, replay
from miras_search.bench.report import aligned
from miras_search.models import budget
from miras_search.models.config import ModelConfig
from miras_search.space.design import DesignPoint
from miras_search.space.fields import Plain, to_plain
from miras_search.training.config import TrainConfig
from miras_search.training.device import peak_bytes, resolve, settled
from miras_search.training.job import Job
from miras_search.training.run import Training

DESIGNS: dict[str, Mapping[str, object]] = {
    "linear_attention": {"preset": "linear_attention"},
    "delta_net": {"preset": "delta_net"},
    "delta_net refined(4)": {"preset": "delta_net", "execution": {"gradient": {"refined": 4}}},
    "delta_net frozen": {"preset": "delta_net", "execution": {"gradient": "frozen"}},
    "delta_product": {"preset": "delta_product"},
    "yaad": {"preset": "yaad"},
}
TASK: dict[str, Plain] = {"name": "noisy_recall", "vocab": 48, "length": 96, "noise": 0.4}
BLOCK = 10  # steps timed together: so many batches are drawn at once, and a GPU is waited for once a block
COMPILE = "The compiled step too: half a minute a design the first time. On a CPU with a compiler the default."
WARMUP = 3  # steps before the first block: kernels compile, allocators fill


def run(
    *,
    designs: Mapping[str, Mapping[str, object]] = DESIGNS,
    device: str = "auto",
    threads: int | None = 1,
    blocks: int = 7,
    model: ModelConfig | None = None,
    task: Mapping[str, Plain] = TASK,
    batch: int = 32,
    against_loop: bool = False,
    compiles: bool | None = False,
) -> dict[str, Plain]:
    """Measure each design point: plain data with one row a design; with `against_loop`, `loop.run` beside them;
    with `compiles` the compiled step as well, which takes half a minute a design the first time; None: on a CPU that
    has a compiler.

    Times are medians over `blocks` blocks of steps. Raises `SpecError` for a design, model or task that is not valid.
    """
    where, model = resolve(device), model or ModelConfig()
    if compiles is None:
        compiles = where.type == "cpu" and not compiler.problem()
    with settled(where, threads):
        rows: list[Plain] = []
        for name, spec in designs.items():
            train = TrainConfig(steps=WARMUP + 1 + BLOCK * blocks, batch=batch, eval_examples=1)
            job = Job(DesignPoint.parse(spec, (name,)), model, task, train, seed=0)
            alone = Training(job, where, None)
            whole = Training(job, where, None, kernels="compiled") if compiles else None
            rows.append({"name": name, **_measure(alone, whole, where, blocks)})
        used = torch.get_num_threads()
    memories: dict[str, Plain] = (
        {"memory": loop.run(device=device, threads=threads, compiles=compiles)} if against_loop else {}
    )
    return {
        "benchmark": "training",
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "threads": used,
        "torch": torch.__version__,
        "model": to_plain(model),
        "task": dict(task),
        "batch": batch,
        "rows": rows,
        **memories,
    }


def _measure(training: Training, whole: Training | None, device: torch.device, blocks: int) -> dict[str, Plain]:
    for step in range(WARMUP):
        training.step(step)
    peak = peak_bytes(device)  # before the floor's operands add to it
    with Products() as products:
        training.step(WARMUP)
    calls = products.calls()
    if whole is not None:
        for step in range(WARMUP + 1):
            whole.step(step)
    steps, floors, compiled = [], [], []
    for block in range(blocks):
        taken = range(WARMUP + 1 + BLOCK * block, WARMUP + 1 + BLOCK * (block + 1))
        steps.append(seconds_of(device, [partial(training.step, step) for step in taken]))
        floors.append(seconds_of(device, [partial(replay, calls)] * BLOCK))
        if whole is not None:
            compiled.append(seconds_of(device, [partial(whole.step, step) for step in taken]))
    seconds, floor = statistics.median(steps), statistics.median(floors)
    # with nothing to compare, what was asked to be compiled could not be
    made = statistics.median(compiled) if whole is not None and whole.first.worst is not None else None
    tokens = training.config.batch * training.task.sequence_length
    return {
        "design": str(training.job.design),
        "step_ms": 1e3 * seconds,
        "tokens_per_second": tokens / seconds,
        "floor_ms": 1e3 * floor,
        "times_floor": seconds / floor,
        "compiled_ms": None if made is None else 1e3 * made,
        "compiled_times_floor": None if made is None else made / floor,
        "products": len(calls),
        "gflop": products.flop / 1e9,
        "params": budget.parameters(training.model),
        "state_bytes": budget.state_bytes(training.model),
        "peak_memory_bytes": peak,
    }


COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("name", "design", "s"),
    ("step_ms", "step ms", ".2f"),
    ("tokens_per_second", "tokens/s", ",.0f"),
    ("floor_ms", "products ms", ".2f"),
    ("times_floor", "x floor", ".1f"),
    ("compiled_ms", "compiled ms", ".2f"),
    ("compiled_times_floor", "x floor", ".1f"),
    ("products", "products", "d"),
    ("gflop", "GFLOP", ".3f"),
    ("params", "params", ",d"),
    ("state_bytes", "state bytes", ",d"),
)


def table(result: Mapping[str, Plain]) -> str:
    """The result of `run` as text: a line on the setting, then one line a design."""
    model, task, rows = result["model"], result["task"], result["rows"]
    assert isinstance(model, dict) and isinstance(task, dict) and isinstance(rows, list)
    body = aligned(rows, COLUMNS)
    setting = (
        f"{result['device']}, {result['threads']} threads, torch {result['torch']}: "
        f"{model['layers']} layers, width {model['d_model']}, {model['heads']} heads, "
        f"{task['name']} of {task['length']} tokens, batch {result['batch']}"
    )
    memory = result.get("memory")
    return "\n".join([setting, *body, *(["", loop.table(memory)] if isinstance(memory, dict) else [])])


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this one benchmark."""
    parser = argparse.ArgumentParser(prog="python -m miras_search.bench.training", description=run.__doc__)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--blocks", type=int, default=7, help=f"blocks of {BLOCK} steps, whose median is taken")
    parser.add_argument("--only", choices=list(DESIGNS), action="append", help="this design; may be repeated")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help=COMPILE)
    parser.add_argument("--json", action="store_true", help="print the data instead of the table")
    chosen = parser.parse_args(argv)
    designs = {name: DESIGNS[name] for name in chosen.only or DESIGNS}
    result = run(
        designs=designs,
        device=chosen.device,
        threads=chosen.threads,
        blocks=chosen.blocks,
        against_loop=not chosen.only,
        compiles=chosen.compile,
    )
    print(json.dumps(result) if chosen.json else table(result))


if __name__ == "__main__":
    main()
