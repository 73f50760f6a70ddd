"""The entries that real jobs run: job data in, outcome out. Torch is imported here, in the worker, not before."""

from __future__ import annotations

import functools
import gc
from collections.abc import Mapping, Sequence

from miras_search.engine.messages import Context, Row
from miras_search.training.job import Job, Outcome, Point


def train_jobs(data: Sequence[Mapping[str, object]], context: Context) -> Sequence[Outcome]:
    """Train the jobs once, several of them as a pack. Raises whatever the training raises; the worker reports it."""
    from miras_search.training.pack import train_pack  # imports torch: the driver must do without
    from miras_search.training.run import train

    _settle()
    jobs = [Job.from_plain(one) for one in data]
    if len(jobs) > 1:
        return train_pack(
            jobs,
            device=context.device,
            report=lambda points: context.report([_rows(one) for one in points]),
            checkpoints=context.checkpoints,
            threads=context.threads,
            kernels=context.kernels,
        )
    alone = train(
        jobs[0],
        device=context.device,
        report=lambda points: context.report([_rows(points)]),
        checkpoint=context.checkpoints[0],
        threads=context.threads,
        keep=context.keep,
        kernels=context.kernels,
    )
    return [alone]


def evaluate_jobs(data: Sequence[Mapping[str, object]], context: Context) -> Sequence[Outcome]:
    """Evaluate the checkpoint that came with a single job. Raises what the evaluation raises."""
    from miras_search.training.trained import evaluate_trained  # imports torch: the driver must do without

    _settle()
    assert context.trained is not None and len(data) == 1, "an evaluation is of one checkpoint"
    job = Job.from_plain(data[0])
    outcome = evaluate_trained(
        job,
        context.trained,
        device=context.device,
        alive=lambda: context.report([()]),
        threads=context.threads,
        kernels=context.kernels,
    )
    context.report([[(outcome.last_step, one.name, one.split, one.value) for one in outcome.finals if one.split]])
    return [outcome]


@functools.cache
def _settle() -> None:
    """Have the garbage collector, once a process, leave aside what has been imported: it stays as long as the worker,
    and walking through it costs 0.1 s before every training.
    """
    gc.freeze()


def _rows(points: Sequence[Point]) -> list[Row]:
    return [(point.step, point.name, point.split, point.value) for point in points]
