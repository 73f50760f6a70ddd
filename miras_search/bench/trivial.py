"""Jobs that train nothing, for measuring what surrounds a training: they report and end as a real one does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import cast

from miras_search.engine.messages import Context, Row
from miras_search.training.job import Cancelled, Final, Outcome

STEP_SECONDS = 0.5  # of a paced job: as often as a training reports
SPLITS = ("train", "validation", "test")


def instant(jobs: Sequence[Mapping[str, object]], context: Context) -> list[Outcome]:
    """Entry: jobs that take no time."""
    return [_train(job, context, 0.0) for job in jobs]


def paced(jobs: Sequence[Mapping[str, object]], context: Context) -> list[Outcome]:
    """Entry: jobs of half a second a step, in which they use no core."""
    return [_train(job, context, STEP_SECONDS) for job in jobs]


def _train(job: Mapping[str, object], context: Context, pause: float) -> Outcome:
    train = cast(Mapping[str, int], job["train"])
    seed = cast(int, job["seed"])
    begun = time.perf_counter()
    steps, every = train["steps"], train["eval_every"] or train["steps"]
    waiting: list[Row] = []
    for step in range(1, steps + 1):
        time.sleep(pause)
        if step % every == 0:
            waiting += [(step, "loss", "train", 1.0 / step), (step, "accuracy", "validation", step / steps)]
        if pause or step == steps:
            if context.report([waiting]):
                raise Cancelled(f"stopped at step {step}")
            waiting = []
    finals = [Final(name, split, 0.5 + seed % 7 / 100) for name in ("accuracy", "loss") for split in SPLITS]
    finals += [Final(name, "", 1000.0) for name in ("params", "state_bytes", "tokens_per_second", "wall_seconds")]
    return Outcome("complete", tuple(finals), steps, time.perf_counter() - begun, 10**8)
