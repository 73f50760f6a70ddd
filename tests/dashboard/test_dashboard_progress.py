"""How far a study is, and how long it will take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest

from miras_search.analysis.snapshot import load
from miras_search.dashboard.progress import (
    ago,
    command,
    current,
    duration,
    live_run,
    newest,
    silent_run,
    time_left,
    troubles,
)
from miras_search.store.database import Database
from miras_search.store.types import RunRow

Opened = Callable[[Path], Database]


class Maker(Protocol):
    path: Path

    def study(self, *, done: int) -> None: ...


def test_time_left_counts_what_runs_and_how_far_it_is(in_progress: Path, opened: Opened) -> None:
    shown = load(opened(in_progress), "bias")
    left = time_left(shown, shown.runs[-1].heartbeat_at)
    # four seeds of seven cells are left; two trainings run, at steps 250 and 50 of 300
    walls = {number: 18.0 + 4.0 * number + 0.5 for number in range(7)}
    work = 4 * sum(walls.values()) - walls[0] * 250 / 300 - walls[1] * 50 / 300
    assert left.seconds == pytest.approx(work / 2, abs=0.5 * 28 / 2)
    assert left.basis.startswith("28 trainings left at ")
    assert left.basis.endswith("(median of the 27 that completed), 2 at a time")


def test_a_silent_run_counts_as_stopped(in_progress: Path, opened: Opened) -> None:
    shown = load(opened(in_progress), "bias")
    now = shown.runs[-1].heartbeat_at + timedelta(seconds=2)
    assert live_run(shown.runs, now) is not None
    assert silent_run(shown.runs, now) is None
    later = now + timedelta(minutes=5)
    assert live_run(shown.runs, later) is None
    assert silent_run(shown.runs, later) == shown.runs[-1]
    assert time_left(shown, later).basis.endswith("one at a time; nothing runs now")


def test_running_trainings_know_their_share(in_progress: Path, opened: Opened) -> None:
    rows = current(load(opened(in_progress), "bias"), datetime.now(UTC))
    assert [(row.cell, row.step, row.steps) for row in rows] == [("l2", 250, 300), ("dot", 50, 300)]
    assert rows[0].share == pytest.approx(250 / 300)


def test_a_finished_study_has_nothing_left(normal: Path, opened: Opened) -> None:
    shown = load(opened(normal), "bias")
    assert (shown.finished, shown.total, shown.commit) == (56, 56, "a1b2c3d")
    assert time_left(shown, datetime.now(UTC)).seconds == 0.0
    assert troubles(shown) == []


def test_without_a_completed_training_there_is_no_estimate(maker: Maker, opened: Opened) -> None:
    maker.study(done=0)
    left = time_left(load(opened(maker.path), "bias"), datetime.now(UTC))
    assert left.seconds is None
    assert "no training has completed" in left.basis


def test_the_newest_come_first_and_a_diverged_one_has_no_value(normal: Path, opened: Opened) -> None:
    rows = newest(load(opened(normal), "bias"), ("accuracy", "test"), limit=3)
    assert [row.job.cell for row in rows] == ["l2 + ascent", "l2 + no_write", "value_shift"]
    assert rows[0].value is not None
    assert (rows[2].attempt.state, rows[2].value) == ("diverged", None)


def test_failures_are_all_listed(only_failures: Path, opened: Opened) -> None:
    found = troubles(load(opened(only_failures), "bias"))
    assert len(found) == 14
    assert {item.attempt.error_type for item in found} == {"RuntimeError"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0.4 s"),
        (42.0, "42 s"),
        (59.7, "1 min"),
        (185.0, "3 min 5 s"),
        (7800.0, "2 h 10 min"),
        (273_600.0, "3 d 4 h"),
    ],
)
def test_durations_read_naturally(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "just now"), (30, "30 s ago"), (200, "3 min ago"), (7300, "2 h ago"), (200_000, "2 d ago")],
)
def test_ago_uses_one_unit(seconds: int, text: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert ago(now - timedelta(seconds=seconds), now) == text


def test_the_command_is_that_of_the_newest_run_of_the_whole_study(in_progress: Path, opened: Opened) -> None:
    run = load(opened(in_progress), "bias").runs[-1]
    words = ("run", "b.yaml", "--set", "seeds=2")

    def typed(*argv: str) -> RunRow:
        return replace(run, provenance={"argv": ["/bin/miras-search", *argv]})

    runs = [typed(*words), typed("run", "b.yaml", "--trial=2"), typed("eval", "b")]
    assert command(runs) == ["miras-search", *words]
    assert command(runs[1:]) is None and command([replace(run, provenance={})]) is None
