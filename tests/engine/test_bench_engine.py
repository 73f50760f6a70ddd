"""The benches of engine and store at a small size: they measure what they say, and say what they measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from miras_search.bench import engine, figures, filled, store
from miras_search.bench.cpu import tree_seconds
from miras_search.bench.figures import Figure
from miras_search.engine import points
from miras_search.engine.search import SearchRun
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.writer import Writer


def test_a_filled_search_is_one_that_a_driver_takes_up(tmp_path: Path) -> None:
    with Database.open(tmp_path / "t.db", create=True) as db:
        study_id = filled.fill(db, filled.study(12), 12, steps=3)
        row = queries.study(db, "filled")
        assert (row.trials, row.jobs["complete"]) == (12, 12)
        assert len(queries.curves(db, study_id, "accuracy", "validation")) == 12 * 3
        search = SearchRun(Writer(db), study_id, filled.study(13))
        try:
            search.resume(queries.jobs(db, study_id), ask=True)
            (job,) = search.more()
        finally:
            search.close()
        assert job.trial_number == 12, "Optuna knows the other twelve"


def test_cells_are_read_when_asked_for_and_known_by_the_key_of_what_they_are(tmp_path: Path) -> None:
    made = filled.study(6)
    with Database.open(tmp_path / "t.db", create=True) as db:
        study_id = filled.fill(db, made, 6)
        cells = points.Cells(made.cells[0], db, study_id)
        keys = dict(cells.stored())
        assert len(cells) == len(list(cells)) == 6
        assert keys == {cell.number: cell.variant.key for cell in cells}
        assert cells[-1] == points.stored(queries.trials(db, study_id)[5]) == cells[4:][1]
        cells.append(cells[3])
        assert cells[6] is cells[3]
        with pytest.raises(IndexError):
            cells[7]


def test_points_are_counted_and_asks_are_timed(tmp_path: Path) -> None:
    rows = store._written(tmp_path / "rows.db", 250)
    assert (rows.unit, rows.bar) == ("/s", 100_000.0) and rows.value > 0
    with Database.open(tmp_path / "rows.db") as db:
        study_id = queries.study(db, "filled").id
        assert len(queries.curves(db, study_id, "accuracy", "validation")) == 250
    ask, tell, resumed = engine._asked(tmp_path / "asked.db", 12, 2)
    assert ask.name == "ask at 12 trials" and min(ask.value, tell.value, resumed.value) > 0


def test_enqueued_jobs_are_stored_in_full_and_counted(tmp_path: Path) -> None:
    jobs, around = engine._enqueued(tmp_path / "jobs.db", 12, "local")
    assert jobs.name == "enqueued jobs through local" and jobs.value > 0 and around.value > 0
    with Database.open(tmp_path / "jobs.db") as db:
        assert queries.study(db, "enqueued").jobs["complete"] == 12


def test_a_figure_says_whether_it_clears_its_bar() -> None:
    rows = [
        Figure("fast", 41.0, "/s", ">=", 40.0),
        Figure("slow", 2.5, "s", "<", 2.0, "loaded"),
        Figure("free", 1, "s"),
    ]
    assert [one.met for one in rows] == [True, False, None]
    found = figures.result("some", {**figures.machine(), "setting": "here"}, rows)
    first, second, third = figures.table(found).splitlines()[2:]
    assert first.split() == ["fast", "41", "/s", ">=", "40", "met"]
    assert second.split() == ["slow", "2.5", "s", "<", "2", "MISSED", "loaded"]
    assert third.split() == ["free", "1", "s"]


def test_the_cpu_time_of_a_process_counts_its_children(tmp_path: Path) -> None:
    def stat(pid: int, parent: int, ticks: int) -> None:
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a) b) S {parent} " + "0 " * 9 + f"{ticks} {ticks} 0 0")

    for pid, parent, ticks in ((10, 1, 100), (11, 10, 200), (12, 11, 300), (13, 1, 400)):
        stat(pid, parent, ticks)
    one = tree_seconds(13, tmp_path) / 800
    assert tree_seconds(10, tmp_path) == pytest.approx(1200 * one)
    assert tree_seconds(99, tmp_path) == 0


@pytest.mark.slow
def test_both_benches_run_from_the_command_line(tmp_path: Path) -> None:
    sizes = {"engine": ("--jobs", "8", "--trials", "8", "--asks", "1", "--paced", "2"), "store": ("--trials", "8")}
    for verb, words in sizes.items():
        done = subprocess.run(
            [sys.executable, "-m", "miras_search.cli", "bench", verb, *words, "--executor", "local"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert " cores, load " in done.stdout
    assert list(tmp_path.iterdir()) == [], "they work in a folder of their own"
