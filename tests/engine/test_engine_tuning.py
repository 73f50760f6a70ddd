"""A tuned study: its tuning on seeds of its own, what it chooses, and the reported seeds that follow the choice."""

from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest

from miras_search.analysis.pilot import pilot
from miras_search.analysis.snapshot import load
from miras_search.analysis.stored import confirmed, stored_tables
from miras_search.analysis.stored_findings import stored_findings
from miras_search.engine.driver import RunOptions, run_study
from miras_search.engine.events import Event, RunSummary, StudyStarted
from miras_search.errors import MirasError
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.study.loader import loads

TEXT = """\
name: tuned
task: [{name: mqar, length: 32}, {name: mqar, length: 64}]
model: {layers: 1, d_model: 16, heads: 1}
train: {steps: 20, batch: 8, eval_examples: 16}
base: delta_net
vary: {bias: [dot]}
seeds: 2
tune: {train.lr: [1e-3, 3e-3, 1e-2, 1e-1], seeds: 1}
"""
TUNING = 2 * 4 * 2  # cells x rates x tasks, one seed
REPORTED = 2 * 2 * 2
Run = Callable[..., RunSummary]


@pytest.fixture
def run(db: Database) -> Run:
    def go(*overrides: str, on_event: Callable[[Event], None] = lambda event: None, **options: object) -> RunSummary:
        given: dict[str, object] = {"executor": "local", "workers": 1, "entry": "tuning_entries:run"} | options
        return run_study(loads(TEXT, "tuned.yaml", overrides), db, RunOptions(**given), on_event)

    return go


def chosen(db: Database) -> dict[tuple[str, str], set[str]]:
    """(cell, task) -> the rates that reported seeds were trained with."""
    study = queries.study(db, "tuned")
    found: dict[tuple[str, str], set[str]] = {}
    for row in queries.results(db, study.id):
        if row.seed < 1000:
            cell = row.cell.partition(" / ")[0]
            found.setdefault((cell, row.task), set()).add(row.changes["train.lr"])
    return found


EXPECTED = {
    ("l2", "mqar(length=32)"): {"0.01"},
    ("l2", "mqar(length=64)"): {"0.003"},
    ("dot", "mqar(length=32)"): {"0.001"},
    ("dot", "mqar(length=64)"): {"0.001"},
}


def test_each_cell_reports_with_the_rate_that_was_best_on_validation(run: Run, db: Database) -> None:
    started: list[StudyStarted] = []
    summary = run(on_event=lambda event: started.append(event) if isinstance(event, StudyStarted) else None)
    assert (started[0].jobs, started[0].todo) == (TUNING + REPORTED, TUNING + REPORTED)
    assert (summary.complete, summary.diverged, summary.waiting) == (TUNING * 3 // 4 + REPORTED, TUNING // 4, 0)
    assert chosen(db) == EXPECTED

    first, second = stored_tables(db, "tuned")
    l2, dot = first.rows
    assert (first.task, l2.cell, dot.cell) == ("mqar(length=32)", "l2", "dot")
    assert [(row.n, row.of, row.diverged) for row in first.rows] == [(2, 2, 0)] * 2  # the tuning's are not counted
    assert l2.mean == pytest.approx(0.9 - 0.1 - 0.0005)  # the entry's, on seeds 0 and 1
    assert (l2.tuned, l2.at_edge, l2.sign_depends) == ({"train.lr": "0.01"}, {}, None)
    # a decade between the best and the worst that ended; the rate that diverged has no mean
    assert l2.sensitivity == {"train.lr": pytest.approx(0.2)}
    assert l2.tried is not None and [*l2.tried] == ["0.001", "0.003", "0.01", "0.1"] and l2.tried["0.1"] is None
    assert (dot.at_edge, dot.sign_depends) == ({"train.lr": "first"}, True)
    assert dot.verdict is not None and dot.verdict.endswith("; its sign depends on train.lr")
    assert any("dot: better than l2 at train.lr = 0.001 or 0.003, worse at 0.01," in note for note in first.notes)

    # the spread that a plan reckons with is that of the reported seeds, which shift both cells alike
    spreads = pilot(db, "tuned", queries.study(db, "tuned").config, own=True).spreads
    assert [(one.task, one.cells, one.freedom) for one in spreads] == [(one.task, 1, 1) for one in (first, second)]
    assert [one.sd for one in spreads] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert any("dot: train.lr = 0.001 is the first of the values tried" in note for note in first.notes)
    assert "train.lr is chosen for each row, the best of 4 by accuracy on validation over 1 seed" in first.caption
    assert [row.tuned for row in second.rows] == [{"train.lr": "0.003"}, {"train.lr": "0.001"}]
    found, _ = stored_findings(db, "tuned", [first, second])
    assert [one.cell for one in found[0].cells] == ["dot"]


def test_an_interrupted_tuning_goes_on_and_what_comes_later_follows_its_choice(run: Run, db: Database) -> None:
    summary = run(max_jobs=TUNING - 1)
    assert (summary.attempts, summary.waiting) == (TUNING - 1, REPORTED + 1)
    assert chosen(db) == {} and not confirmed(db, "tuned")
    with pytest.raises(MirasError, match="no reported seed is trained before the tuning ends"):
        stored_tables(db, "tuned")

    summary = run(max_jobs=4)
    assert (summary.attempts, summary.waiting) == (4, REPORTED - 3)
    assert run().attempts == REPORTED - 3
    assert chosen(db) == EXPECTED
    assert run("seeds=3").attempts == REPORTED // 2
    assert run("seeds=3", trial=2).attempts == 2 + 3  # l2 at 1e-2: the tuning on both tasks, reported on one
    assert chosen(db) == EXPECTED
    # Optuna's trials were finished by the tuning and have got more jobs since
    storage = optuna.storages.RDBStorage(db.url.render_as_string(hide_password=False))
    record = optuna.load_study(study_name="miras-search/tuned", storage=storage)
    assert {str(trial.state.name) for trial in record.get_trials(deepcopy=False)} == {"COMPLETE", "FAIL"}
    storage.remove_session()
    storage.engine.dispose()
    with pytest.raises(MirasError, match="tuned has trials 0 to 7"):
        run(trial=8)


def test_a_choice_waits_for_trainings_that_failed(run: Run, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine's fault would take the best setting from one cell of a comparison, and nobody would see it."""
    monkeypatch.setenv("LOSSY", "1")
    summary = run(entry="tuning_entries:lossy")
    assert (summary.failed, summary.complete) == (1, TUNING - 4 - 1)
    assert summary.held == (
        "1 training of the tuning failed: nothing is chosen, and no reported seed is trained, before they are "
        "(tune.failed: wait)"
    )
    assert chosen(db) == {}
    assert load(db, "tuned").is_held
    monkeypatch.delenv("LOSSY")
    assert run(entry="tuning_entries:lossy").held is not None, "nobody asked for another try"
    summary = run(entry="tuning_entries:lossy", retry_failed=True)
    assert (summary.failed, summary.held) == (0, None)
    assert chosen(db) == EXPECTED
    assert not load(db, "tuned").is_held


def test_a_failed_training_may_count_against_its_setting(
    run: Run, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSY", "1")
    words = ("tune.failed=leave_out",)
    summary = run(*words, entry="tuning_entries:lossy")
    assert (summary.failed, summary.held) == (1, None)
    assert chosen(db) == {**EXPECTED, ("l2", "mqar(length=32)"): {"0.003"}}
    told = "l2: its seeds were trained with train.lr = 0.003 before its tuning had all results"
    assert not any(told in note for note in stored_tables(db, "tuned")[0].notes)
    monkeypatch.delenv("LOSSY")
    assert run(*words, entry="tuning_entries:lossy", retry_failed=True).failed == 0
    assert chosen(db)["l2", "mqar(length=32)"] == {"0.003"}, "what is reported follows one choice"
    (note,) = [note for note in stored_tables(db, "tuned")[0].notes if told in note]
    assert note.endswith("by those that it has now 0.01 is best. Train it under another name (--as).")


def test_what_is_no_way_with_failures_is_refused() -> None:
    with pytest.raises(MirasError, match="'drop' is none of wait, leave_out"):
        loads(TEXT, "tuned.yaml", ("tune.failed=drop",))
    assert "failed" not in str(loads(TEXT, "tuned.yaml").config["tune"]), "as studies of before have it"
