"""What a run may spend, by the study's `resources`: the GPU hours of all its runs, and the time of this one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from miras_search.store.database import Database
from miras_search.store.spent import worker_seconds
from miras_search.study.schema import Resources

LOOK_SECONDS = 5.0  # between two looks at what the attempts have cost


class BudgetSpent(Exception):
    """The run is to end in order; `more` is the option with which the same command would go on."""

    def __init__(self, text: str, more: str) -> None:
        self.text, self.more = text, more
        super().__init__(text)


class Budget:
    """Watches over one run that began at `began`, by `clock`."""

    def __init__(
        self,
        db: Database,
        study_id: int,
        resources: Resources,
        began: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._db, self._study_id, self._resources = db, study_id, resources
        self._began, self._clock = began, clock
        self._looked = -math.inf

    def check(self) -> None:
        """Raises BudgetSpent."""
        wall, hours, now = self._resources.wall, self._resources.gpu_hours, self._clock()
        if wall is not None and now - self._began > wall:
            raise BudgetSpent(f"the wall time of {timedelta(seconds=wall)} is over", "")
        if hours is None or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if gpu_hours(self._db, self._study_id, self._resources) >= hours:
            raise BudgetSpent(f"{hours:g} GPU-hours are spent", f"--set resources.gpu_hours={2 * hours:g}")


def gpu_hours(db: Database, study_id: int, resources: Resources) -> float:
    """What the attempts of a study have spent so far, at as many GPUs a process as its file asks for now."""
    return worker_seconds(db, study_id, "cuda", datetime.now(UTC)) * resources.gpus / 3600
