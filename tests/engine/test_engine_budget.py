"""Budgets end a run in order: what was found is stored, the rest waits, and a larger budget goes on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from miras_search.engine.budget import Budget
from miras_search.engine.events import JobStarted, Stopping
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.study.schema import Resources


def test_the_wall_time_of_a_run_ends_it_and_the_next_one_goes_on(local, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = 0.0

    def budget(db: Database, study_id: int, resources: Resources, began: float) -> Budget:
        return Budget(db, study_id, resources, began, clock=lambda: began + passed)

    def let_it_pass(event: object) -> None:
        nonlocal passed
        if isinstance(event, JobStarted) and event.seed == 1:
            passed = 3601.0

    monkeypatch.setattr("miras_search.engine.driver.Budget", budget)
    summary = local("hang=1", overrides=("resources.wall=1 h",), on_event=let_it_pass)
    assert summary.spent == "the wall time of 1:00:00 is over"
    assert (summary.more, summary.interrupted) == ("", False)
    assert summary.complete + summary.waiting == 6 and summary.waiting >= 3
    assert len(local.told(Stopping)) == 1
    assert [row.status for row in queries.runs(local.db, local.study_id)] == ["done"]
    assert not queries.running(local.db, local.study_id)
    passed = 0.0
    assert local(overrides=("resources.wall=1 h",)).complete == 6


def test_gpu_hours_are_those_of_all_runs(local, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def spent(db: object, study_id: int, device: str, now: datetime) -> float:
        assert datetime.now(UTC) - now < timedelta(minutes=1)
        asked.append(device)
        return 3 * 3600.0

    monkeypatch.setattr("miras_search.engine.budget.worker_seconds", spent)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # shown, and never used
    summary = local(overrides=("resources={gpus: 0.5, gpu_hours: 1.5}",))
    assert summary.spent == "1.5 GPU-hours are spent"
    assert summary.more == "--set resources.gpu_hours=3"
    assert (summary.attempts, summary.waiting) == (0, 6)
    assert asked == ["cuda"]
    assert local(overrides=("resources.gpus=0",)).complete == 6
