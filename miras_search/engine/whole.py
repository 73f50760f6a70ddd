"""A study with all that belongs to it: its own trainings, then those of the rival that it is compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager

from miras_search.engine.driver import RunOptions, run_study
from miras_search.engine.events import Event, RunSummary
from miras_search.store.database import Database
from miras_search.study.rival import both
from miras_search.study.study import Study

Listener = Callable[[Event], None]


def run_whole(
    study: Study, db: Database, options: RunOptions, listen: Callable[[Study], AbstractContextManager[Listener]]
) -> list[RunSummary]:
    """Train the study, then its rival where it has one and the study has come to its end; a summary of each that began.

    `options` are those of `run_study`: `max_jobs` is for both together, and a single trial is one of the study's own.
    `listen` gives what is told about each of the two while it is trained. Raises whatever `run_study` raises.
    """
    found: list[RunSummary] = []
    left = options.max_jobs
    for one in both(study) if options.trial is None else (study,):
        if found and (found[-1].waiting or found[-1].unsought or found[-1].spent):
            break
        with listen(one) as on_event:
            summary = run_study(one, db, dataclasses.replace(options, max_jobs=left), on_event)
        left = None if left is None else left - summary.attempts
        found.append(summary)
    return found
