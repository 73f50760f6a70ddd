"""The entry that every real job runs: job data in, outcome out. Torch is imported here, in the worker, not before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from miras_search.engine.messages import Context
from miras_search.training.job import Job, Outcome, Point


def train_job(data: Mapping[str, object], context: Context) -> Outcome:
    """Train the job once. Raises whatever the training raises; the worker reports it."""
    from miras_search.training.run import train  # imports torch: the driver must be able to import this module without

    def report(points: Sequence[Point]) -> bool:
        return context.report([(point.step, point.name, point.split, point.value) for point in points])

    return train(
        Job.from_plain(data),
        device=context.device,
        report=report,
        checkpoint=context.checkpoint,
        threads=context.threads,
    )
