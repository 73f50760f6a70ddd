"""An entry that stands in for a training whose quality is a known function of bias, rate and seed: `quick:run`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

from miras_search.engine.messages import Context
from miras_search.training.job import Final, Outcome

# bias -> the rate at which it is best, by task length
BEST = {"l2": {32: 1e-2, 64: 3e-3}, "dot": {32: 1e-3, 64: 1e-3}}


def validation(bias: str, lr: float, length: int, seed: int) -> float:
    """Falls with the distance of the rate from the best one, in decades."""
    return 0.9 - 0.2 * abs(math.log10(lr / BEST[bias][length])) - 0.001 * (seed % 7)


def run(jobs: Sequence[Mapping[str, object]], context: Context) -> list[Outcome]:
    """One outcome a job; the rate 0.1 diverges."""
    return [_run(job) for job in jobs]


def lossy(jobs: Sequence[Mapping[str, object]], context: Context) -> list[Outcome]:
    """The same on a machine that loses what l2 is best with, as long as LOSSY is set."""
    for job in jobs:
        design, train, task = job["design"], job["train"], job["task"]
        assert isinstance(design, dict) and isinstance(train, dict) and isinstance(task, dict)
        if os.environ.get("LOSSY") and ("l2" in design["bias"], train["lr"], task["length"]) == (True, 1e-2, 32):
            raise OSError("this machine is ill")
    return run(jobs, context)


def _run(job: Mapping[str, object]) -> Outcome:
    design, train, task = job["design"], job["train"], job["task"]
    assert isinstance(design, dict) and isinstance(train, dict) and isinstance(task, dict)
    bias, lr, seed = next(iter(design["bias"])), float(train["lr"]), int(str(job["seed"]))
    if lr > 0.05:
        return Outcome("diverged", (Final("params", "", 12.0),), 7, 0.5, 100, "loss nan at step 8")
    found = validation(bias, lr, int(task["length"]), seed)
    finals = (
        Final("accuracy", "validation", found),
        Final("loss", "validation", 1 - found),
        Final("accuracy", "test", found - 0.1),
        Final("params", "", 12.0),
    )
    return Outcome("complete", finals, 20, 0.5, 100)
