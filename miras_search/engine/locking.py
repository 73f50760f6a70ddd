"""Lock a study: write down its family, metric, test, margin and seeds before any of its results exists."""

from __future__ import annotations

import math

from miras_search.analysis.locked import TEST
from miras_search.engine.jobs import put_study
from miras_search.errors import MirasError
from miras_search.metrics import METRICS
from miras_search.space.fields import Plain
from miras_search.store.database import Database
from miras_search.store.locks import put_lock
from miras_search.store.types import LockRow
from miras_search.store.writer import Writer
from miras_search.study.study import Study


def lock_study(study: Study, db: Database, margin: float | None) -> LockRow:
    """Store the study, without any jobs, and lock it; `margin` is a difference too small to matter.

    Raises TooLate once its trainings have begun, StudyChanged where the database has another study of that name, and
    MirasError for a search, a study without cells to compare, and a margin that is not positive.
    """
    return put_lock(db, put_study(study, Writer(db)), lock_content(study, margin))


def lock_content(study: Study, margin: float | None) -> dict[str, Plain]:
    """What a lock holds, as plain data. Raises MirasError as `lock_study` does."""
    family = [cell.name for cell in study.cells if cell.role == "cell"]
    if study.search is not None:
        raise MirasError(f"{study.name}: a search has no family to lock: lock the ablation that follows it")
    if not family:
        raise MirasError(f"{study.name}: there is nothing to compare with the base: list levels under vary")
    if margin is not None and not 0 < margin < math.inf:
        raise MirasError(f"--margin {margin:g}: a margin is positive: give how small a difference does not matter")
    return {
        "study": study.name,
        "compared": study.space_hash,
        "base": study.base_name,
        "family": list(family),
        "controls": list(study.controls),
        "tasks": [task.name for task in study.tasks],
        "metric": study.metric,
        "split": METRICS[study.metric].split,
        "test": TEST,
        "margin": margin,
        "seeds": [*sorted(study.seeds)],
        **({"top_up": study.top_up.to_plain()} if study.top_up else {}),
    }
