"""The files that tasks read: what a study was trained on must be what it goes on with.

Settings say where files lie and not what is in them, so a folder that was changed, or another Python's own sources,
would be another task under the same name. Each run notes a hash of what its driver read, and sends it to the workers:
one that sees other files under the same path fails its jobs (`engine/task.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from miras_search.errors import MirasError
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.study.study import Study
from miras_search.tasks import files_hash, task_from_spec
from miras_search.tasks.corpus import read_corpus

KEY = "corpora"  # in the provenance of a run


def corpora(study: Study) -> dict[str, str]:
    """By name the study's tasks that read files, with the hash of what they read.

    One that cannot be read here is left out: its jobs may run where it can, and say so where not.
    """
    read_corpus.cache_clear()  # a notebook may have read them before they changed
    found = {}
    for task in study.tasks:
        try:
            hash_ = files_hash(task_from_spec(task.spec))
        except MirasError:
            continue
        if hash_ is not None:
            found[task.name] = hash_
    return found


def check_corpora(study: Study, db: Database, now: Mapping[str, str]) -> None:
    """Raise MirasError where results are stored that were found with other files."""
    if not queries.holds(db, study.name):
        return
    stored = queries.study(db, study.name).id
    used = {attempt.run_id for attempt in queries.attempts(db, stored)}
    for run in queries.runs(db, stored):
        then = cast(Mapping[str, str], run.provenance.get(KEY, {})) if run.id in used else {}
        for task, hash_ in now.items():
            if then.get(task, hash_) != hash_:
                raise MirasError(
                    f"{study.name}: task {task}: its files are not those that results are stored of (sha256 "
                    f"{hash_[:12]} now, {then[task][:12]} then): put them back, or train under another name (--as)"
                )
