"""What a search will cost and what it can show, before anything is trained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from miras_search.seeds import smallest_p
from miras_search.space.fields import Plain
from miras_search.study.plan import ENOUGH_SEEDS, FINAL
from miras_search.study.search import KNOWN_BEFORE
from miras_search.study.study import Study

FEW_TRIALS = 20  # below, a model-based sampler has hardly begun


@dataclasses.dataclass(frozen=True, slots=True)
class SearchPlan:
    """The size of a search and its limits."""

    size: float
    """Points of the space; infinite where a number is drawn from a range."""
    trials: int
    tasks: int
    seeds: int
    jobs: int
    """Of the search at most: trials x tasks x seeds. A pruner ends some early, the base may be one more."""
    confirm_jobs: int
    """Of the confirmation: the best and the base, each on every task with every fresh seed."""
    done: Mapping[str, int]
    """Jobs by state, of those that the store knows."""
    remaining: int
    """Jobs without a result, at most."""
    notes: tuple[str, ...]
    """What limits the search or its reading, one sentence each."""
    estimate_seconds: float | None
    """Wall time of the remaining jobs if none is cut short; None until a job has been timed."""

    def to_plain(self) -> dict[str, Plain]:
        """As plain data, for `--json`."""
        return {
            "size": self.size if math.isfinite(self.size) else None,
            "trials": self.trials,
            "tasks": self.tasks,
            "seeds": self.seeds,
            "jobs": self.jobs,
            "confirm_jobs": self.confirm_jobs,
            "done": dict(self.done),
            "remaining": self.remaining,
            "notes": list(self.notes),
            "estimate_seconds": self.estimate_seconds,
        }


def search_plan(
    study: Study, done: Mapping[str, int] | None = None, *, seconds_per_job: float | None = None, slots: int = 1
) -> SearchPlan:
    """The plan of a study of kind search; the arguments are those of `plan.plan`."""
    search = study.search
    assert search is not None, "only a search has such a plan"
    jobs = search.trials * len(study.tasks) * len(study.seeds)
    confirm = (search.top + 1) * len(study.tasks) * len(search.confirm_seeds)
    counts = {state: number for state, number in (done or {}).items() if number}
    remaining = max(0, jobs + confirm - sum(counts.get(state, 0) for state in FINAL))
    return SearchPlan(
        size=search.space.size(),
        trials=search.trials,
        tasks=len(study.tasks),
        seeds=len(study.seeds),
        jobs=jobs,
        confirm_jobs=confirm,
        done=counts,
        remaining=remaining,
        notes=tuple(_notes(study)),
        estimate_seconds=None if seconds_per_job is None else seconds_per_job * remaining / max(1, slots),
    )


def _notes(study: Study) -> list[str]:
    search = study.search
    assert search is not None
    found = []
    size = search.space.size()
    if size < search.trials:
        what = f"the space has {size:,.0f} points for {search.trials} trials: repeated ones become more seeds of theirs"
        found.append(f"{what}; a factorial ablation would train each exactly once")
    if search.sampler not in ("random", "qmc") and search.trials < FEW_TRIALS:
        found.append(f"{search.trials} trials: {search.sampler} has hardly begun to learn; expect what random finds")
    if not search.confirm_seeds:
        found.append("nothing is confirmed: the best of many is best partly by luck; set confirm: {top: 5, seeds: 10}")
    elif len(search.confirm_seeds) < ENOUGH_SEEDS:
        least = smallest_p(len(search.confirm_seeds))
        found.append(
            f"{len(search.confirm_seeds)} fresh seeds: the smallest p is {least:.2g}; confirm on {ENOUGH_SEEDS}"
        )
    if search.batch is None:
        found.append("schedule: async asks as jobs end, so a run elsewhere draws other trials; sync repeats them")
    learned = [name for name in search.constraints if name not in KNOWN_BEFORE]
    if learned:
        found.append(f"{', '.join(learned)} is known after a training only: trials over the limit cost their time")
    return found
