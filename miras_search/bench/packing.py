"""Trainings an hour: packs of several sizes against one process a training.

All train the same jobs, which differ in their seeds: one eager training by itself, so many eager trainings in
processes that share the device (as a fraction of a GPU does in a study), and packs. Only steps are timed, and counted
as trainings of `steps` steps; starting a process and evaluating are left out, and both favour packs in a real study.

Needs torch alone: python -m miras_search.bench.packing
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from subprocess import PIPE

import torch

from miras_search.bench.clock import seconds_of
from miras_search.bench.report import aligned
from miras_search.models.config import ModelConfig
from miras_search.space.design import DesignPoint
from miras_search.space.fields import Plain, to_plain
from miras_search.training.config import TrainConfig
from miras_search.training.device import peak_bytes, resolve, settled
from miras_search.training.job import Job
from miras_search.training.pack import Pack
from miras_search.training.run import Training

MODEL = ModelConfig(layers=2, d_model=64, heads=2, conv=4)
TASK: dict[str, Plain] = {"name": "mqar", "vocab": 64, "length": 64, "pairs": 8}
STEPS = 300  # of a training, for the figure
WARMUP = 6  # steps before the first that counts: kernels compile, a graph is recorded
SOLO = "solo"


def run(
    *,
    packs: Sequence[int] = (1, 4, 16, 32),
    processes: Sequence[int] = (),
    design: str = "delta_net",
    device: str = "auto",
    threads: int = 1,
    steps: int = 20,
    model: ModelConfig = MODEL,
    task: Mapping[str, Plain] = TASK,
    batch: int = 32,
) -> dict[str, Plain]:
    """Time `steps` steps of each: plain data, a row for the solo training, each number of processes and each pack.

    Raises `SpecError` for a design, model or task that is not valid, `EnvironmentProblem` for a missing device.
    """
    where = resolve(device)
    train = TrainConfig(steps=STEPS, batch=batch, eval_examples=1)
    job = Job(DesignPoint.parse(design), model, task, train, seed=0)
    with settled(where, threads):
        alone, peak = _solo(job, where, steps)
        rows = [_row("one process", 1, alone, alone, peak)]
        for count in processes:
            rows.append(
                _row(f"{count} beside each other", count, _beside(job, count, device, threads, steps), alone, None)
            )
        for count in packs:
            seconds, peak = _packed(job, count, where, steps)
            rows.append(_row(f"pack of {count}", count, seconds, alone, peak))
    return {
        "benchmark": "packing",
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "threads": threads,
        "torch": torch.__version__,
        "design": design,
        "model": to_plain(model),
        "task": dict(task),
        "batch": batch,
        "steps": STEPS,
        "rows": list(rows),
    }


def _row(name: str, trainings: int, seconds: float, alone: float, peak: int | None) -> Plain:
    """What a step of so many trainings at once took."""
    return {
        "name": name,
        "trainings": trainings,
        "step_ms": 1e3 * seconds,
        "trainings_per_hour": 3600 * trainings / (STEPS * seconds),
        "times_one": trainings * alone / seconds,
        "peak_memory_bytes": peak,
    }


def _solo(job: Job, device: torch.device, steps: int) -> tuple[float, int]:
    """Seconds of an eager step, and the peak of memory."""
    training = Training(job, device, None)
    for step in range(WARMUP):
        training.step(step)
    return seconds_of(device, [partial(training.step, WARMUP + i) for i in range(steps)]), peak_bytes(device)


def _packed(job: Job, count: int, device: torch.device, steps: int) -> tuple[float, int]:
    """Seconds of a step of a pack, and the peak of memory."""
    pack = Pack([_with_seed(job, seed) for seed in range(count)], device, None)
    for step in range(WARMUP):
        pack.step(step)
    return seconds_of(device, [partial(pack.step, WARMUP + i) for i in range(steps)]), peak_bytes(device)


def _beside(job: Job, count: int, device: str, threads: int, steps: int) -> float:
    """Seconds of a step when so many processes train at once: from the start of all to the end of the last."""
    command = [sys.executable, "-m", "miras_search.bench.packing", SOLO, device, str(threads), str(steps)]
    workers = [
        subprocess.Popen([*command, json.dumps(_with_seed(job, seed).to_plain())], text=True, stdin=PIPE, stdout=PIPE)
        for seed in range(count)
    ]
    try:
        for worker in workers:
            _heard(worker)  # it is warm
        start = time.perf_counter()
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        for worker in workers:
            _heard(worker)
        return (time.perf_counter() - start) / steps
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def _heard(worker: subprocess.Popen[str]) -> None:
    """Wait for a line of a worker. Raises RuntimeError when it has died."""
    assert worker.stdout is not None
    if not worker.stdout.readline():
        raise RuntimeError(f"a training beside others ended with exit code {worker.wait()}")


def _work(device: str, threads: int, steps: int, job: Job) -> None:
    """A worker of `_beside`: warm up, say so, wait for the word, train, say so."""
    where = resolve(device)
    with settled(where, threads):
        training = Training(job, where, None)
        for step in range(WARMUP):
            training.step(step)
        print("warm", flush=True)
        sys.stdin.readline()
        seconds_of(where, [partial(training.step, WARMUP + i) for i in range(steps)])
        print("done", flush=True)


def _with_seed(job: Job, seed: int) -> Job:
    return Job(job.design, job.model, job.task, job.train, seed)


COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("name", "trained by", "s"),
    ("trainings", "at once", "d"),
    ("step_ms", "step ms", ".2f"),
    ("trainings_per_hour", "trainings/h", ",.0f"),
    ("times_one", "x one process", ".2f"),
)


def table(result: Mapping[str, Plain]) -> str:
    """The result of `run` as text: a line on the setting, then one line a row."""
    model, task, rows = result["model"], result["task"], result["rows"]
    assert isinstance(model, dict) and isinstance(task, dict) and isinstance(rows, list)
    setting = (
        f"{result['device']}, {result['threads']} threads, torch {result['torch']}: {result['design']}, "
        f"{model['layers']} layers, width {model['d_model']}, {task['name']} of {task['length']} tokens, "
        f"batch {result['batch']}, {result['steps']} steps a training"
    )
    return "\n".join([setting, *aligned(rows, COLUMNS)])


def main(argv: Sequence[str]) -> None:
    """The command line of this one benchmark, and of its workers."""
    if argv[:1] == [SOLO]:
        device, threads, steps, job = argv[1:]
        _work(device, int(threads), int(steps), Job.from_plain(json.loads(job)))
        return
    parser = argparse.ArgumentParser(prog="python -m miras_search.bench.packing", description=run.__doc__)
    parser.add_argument("--pack", default="1,4,16,32", help="sizes of packs")
    parser.add_argument("--processes", default="", help="numbers of processes that share the device, as 4,8")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--steps", type=int, default=20, help="steps timed")
    chosen = parser.parse_args(argv)
    packs, processes = ([int(n) for n in text.split(",") if n] for text in (chosen.pack, chosen.processes))
    print(table(run(packs=packs, processes=processes, device=chosen.device, steps=chosen.steps)))


if __name__ == "__main__":
    main(sys.argv[1:])
