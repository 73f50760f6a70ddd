"""A study with declared top-ups: which cells get more seeds after which look, also where the run was interrupted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from miras_search.analysis.stored import looked, stored_tables
from miras_search.engine import driver
from miras_search.engine.driver import RunOptions, run_study
from miras_search.engine.events import Event, RunSummary, StudyStarted, ToppedUp
from miras_search.engine.messages import Message, Task
from miras_search.engine.task import run_task
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import StudyChanged
from miras_search.study.loader import loads

TEXT = """\
name: topped
task: {name: mqar, length: 32}
model: {layers: 1, d_model: 16, heads: 1}
train: {steps: 20, batch: 8, eval_examples: 16}
base: delta_net
vary: {bias: [dot, kl, value_shift]}
controls: [no_write]
seeds: 7
top_up: {max_seeds: 13, looks: 3}
"""
FIRST = 5 * 7  # cells, the control among them, x seeds
Run = Callable[..., RunSummary]


class Here:
    """An executor in this process: these trainings are functions of a line, and what is tested is the order of jobs."""

    name, slots = "here", 1

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def submit(self, ticket: int, task: Task, *, whole_device: bool = False) -> None:
        def send(messages: Sequence[Message]) -> bool:
            self.messages += messages
            return False

        self.messages += run_task(ticket, task, send)

    def poll(self, timeout: float) -> list[Message]:
        found, self.messages = self.messages, []
        return found

    def stop(self) -> None: ...

    def kill(self, ticket: int) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def run(db: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(driver, "make_executor", lambda *given, **options: Here())

    def go(*overrides: str, on_event: Callable[[Event], None] = lambda event: None, **options: object) -> RunSummary:
        given: dict[str, object] = {"entry": "top_up_entries:run"} | options
        return run_study(loads(TEXT, "topped.yaml", overrides), db, RunOptions(**given), on_event)

    return go


def seeds(db: Database) -> Counter[str]:
    """Cell -> jobs."""
    study = queries.study(db, "topped")
    return Counter(row.cell for row in queries.results(db, study.id) if row.state == "complete")


def test_undecided_cells_and_the_base_get_more_seeds_look_by_look(run: Run, db: Database) -> None:
    events: list[Event] = []
    summary = run(on_event=events.append)
    started = next(event for event in events if isinstance(event, StudyStarted))
    assert (started.jobs, started.todo) == (FIRST, FIRST)
    # dot is decided at once, value_shift once its outlier is outvoted, kl never
    assert [(e.undecided, e.seeds, e.jobs) for e in events if isinstance(e, ToppedUp)] == [(2, 3, 9), (1, 3, 6)]
    assert seeds(db) == {"l2": 13, "dot": 7, "kl": 13, "value_shift": 10, "l2 + no_write": 7}
    assert (summary.complete, summary.waiting, summary.unsought) == (FIRST + 15, 0, False)
    (found,) = looked(db, "topped").values()
    assert (found.taken, found.decided, found.wanting) == (3, {1: 0, 3: 1}, ())

    (table,) = stored_tables(db, "topped")
    assert "Looks at 7, 10 and 13 seeds, declared before any result, spend 1.67 % each" in table.caption
    assert "3 of 3 are taken" in table.caption
    row = {one.cell: one for one in table.rows}
    assert [row[cell].n for cell in ("l2", "dot", "kl")] == [13, 7, 13]
    assert row["dot"].p == pytest.approx(3 * 2 / 2**7)
    assert row["value_shift"].verdict is not None and row["value_shift"].verdict.endswith("decided")
    assert row["kl"].verdict is not None and "not decided" in row["kl"].verdict
    assert run().attempts == 0

    (table,) = stored_tables(db, "topped", against="dot")
    assert "Seeds were added after looks at accuracy against l2, which p here leaves out of account" in table.caption
    assert "declared before any result" not in table.caption


def test_an_interrupted_top_up_goes_on_where_it_was_without_cells_that_diverged(run: Run, db: Database) -> None:
    small = ("vary.bias=[l1, kl]", "controls=[]", "seeds=8", "top_up={max_seeds: 10}")
    summary = run(*small, max_jobs=24)
    assert (summary.diverged, summary.waiting, summary.unsought) == (1, 0, True)
    assert run(*small, max_jobs=1).waiting == 3
    events: list[Event] = []
    summary = run(*small, on_event=events.append)
    started = next(event for event in events if isinstance(event, StudyStarted))
    assert (started.jobs, started.done, started.todo) == (28, 25, 3)
    assert (summary.attempts, summary.waiting) == (3, 0)
    assert seeds(db) == {"l2": 10, "kl": 10, "l1": 7}
    assert run(*small, trial=1).attempts == 8


def test_a_look_waits_for_a_training_that_failed_until_it_is_retried(
    run: Run, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ("vary.bias=[dot, kl]", "controls=[]", "top_up={max_seeds: 9}")
    monkeypatch.setenv("FAILS", "3")
    summary = run(*small)
    assert (summary.failed, summary.waiting, summary.unsought) == (1, 0, False)
    assert summary.held == (
        "The look at 7 seeds waits for trainings that failed and so have no result (kl: seed 3): "
        "it decides nothing and adds no seeds before they are trained"
    )
    assert seeds(db) == {"l2": 7, "dot": 7, "kl": 6}
    assert run(*small).attempts == 0
    monkeypatch.delenv("FAILS")
    summary = run(*small, retry_failed=True)
    assert (summary.attempts, summary.failed, summary.held) == (1 + 2 * 2, 0, None)
    assert seeds(db) == {"l2": 9, "dot": 7, "kl": 9}


def test_a_failed_training_is_left_out_where_that_was_declared(
    run: Run, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILS", "3")
    summary = run("vary.bias=[dot, kl]", "controls=[]", "seeds=8", "top_up={max_seeds: 9, failed: leave_out}")
    assert (summary.failed, summary.held) == (1, None)
    assert seeds(db) == {"l2": 9, "dot": 8, "kl": 8}


def test_all_decided_ends_it(run: Run, db: Database) -> None:
    assert run("vary.bias=[dot]", "controls=[]").attempts == 2 * 7
    assert "1 of 3 are taken; all that can be decided is" in stored_tables(db, "topped")[0].caption


def test_it_cannot_be_declared_afterwards(run: Run, db: Database) -> None:
    small = ("vary.bias=[dot]", "controls=[]")
    run(*small, "top_up={}")
    with pytest.raises(StudyChanged):
        run(*small)
    run(*small, "top_up={}", "seeds=9")
    said = "nothing was locked before its results, and 2 seeds (7, 8) were added after some"
    assert said in stored_tables(db, "topped")[0].caption


@pytest.mark.slow
def test_each_task_and_a_tuned_setting_has_looks_of_its_own(run: Run, db: Database) -> None:
    tuned = "tune={train.lr: [1e-3, 3e-3, 1e-2, 3e-2], seeds: 1}"
    both = "task=[{name: mqar, length: 32}, {name: mqar, length: 64}]"
    summary = run(tuned, both, "vary.bias=[kl]", "controls=[]", "top_up={max_seeds: 8}")
    tuning, first, second = 2 * 4 * 2, 2 * 2 * 7, 2 * 2
    assert (summary.complete, summary.waiting) == (tuning + first + second, 0)
    assert [row.n for table in stored_tables(db, "topped") for row in table.rows] == [8] * 4
