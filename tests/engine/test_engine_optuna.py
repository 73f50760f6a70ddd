"""Optuna's record of a study follows the rows: one trial a cell, the same numbers, and anew where it cannot follow."""

from __future__ import annotations

import math
from statistics import fmean

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text

from miras_search.engine.optuna_ import OptunaRecord, verdict
from miras_search.errors import EnvironmentProblem
from miras_search.store import queries
from miras_search.store.database import parse_database

CELLS = ("l2", "dot", "l2 + no_write")


def trials(run) -> list[FrozenTrial]:
    storage = optuna.storages.RDBStorage(run.db.url.render_as_string(hide_password=False))
    try:
        return optuna.load_study(study_name="miras-search/tiny", storage=storage).get_trials()
    finally:
        storage.remove_session()
        storage.engine.dispose()


def mean(run, cell: str, seeds: tuple[int, ...] = (0, 1)) -> float:
    return fmean(run.results()[cell, seed][1]["accuracy", "test"] for seed in seeds)


def test_a_finished_study_has_a_trial_a_cell_with_its_mean(local) -> None:
    local()
    found = trials(local)
    assert [trial.params for trial in found] == [
        {"bias": "l2"},
        {"bias": "dot"},
        {"bias": "l2", "control": "no_write"},
    ]
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * 3
    assert [trial.value for trial in found] == pytest.approx([mean(local, name) for name in CELLS])
    assert found[2].user_attrs["cell"] == "l2 + no_write" and found[2].user_attrs["role"] == "control"


def test_divergence_and_failure_are_told_as_failed(local) -> None:
    local("diverge=0.dot+raise=1.l2")
    assert [trial.state.name for trial in trials(local)] == ["FAIL", "FAIL", "COMPLETE"]
    local(retry_failed=True)
    found = trials(local)
    assert [trial.state.name for trial in found] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert found[0].value == pytest.approx(mean(local, "l2"))


def test_a_resumed_study_is_not_enqueued_again(local) -> None:
    local(max_jobs=4)
    started = [trial.datetime_start for trial in trials(local)]
    assert [trial.state.name for trial in trials(local)] == ["COMPLETE", "RUNNING", "RUNNING"]
    local()
    found = trials(local)
    assert [trial.number for trial in found] == [0, 1, 2]
    assert [trial.datetime_start for trial in found] == started
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 3


def test_more_seeds_change_the_mean(local) -> None:
    local()
    local(overrides=("seeds=3",))
    assert trials(local)[1].value == pytest.approx(mean(local, "dot", (0, 1, 2)))


def test_a_crash_between_the_rows_and_the_record_is_mended(local, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(record: OptunaRecord, number: int, found: object) -> None:
        if found is not None and number == 1:
            raise KeyError("as if killed")

    with monkeypatch.context() as patch:
        patch.setattr(OptunaRecord, "tell", crash)
        with pytest.raises(KeyError):
            local(workers=1)
    assert trials(local)[1].state == TrialState.RUNNING
    assert local.results()["dot", 1][0] == "complete"
    local()
    assert [trial.value for trial in trials(local)] == pytest.approx([mean(local, name) for name in CELLS])


def test_a_database_that_fails_optuna_is_one_line(local, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(record: OptunaRecord, number: int) -> None:
        raise StorageInternalError("An exception is raised during the commit.\nThis is") from OSError("disk is full")

    monkeypatch.setattr(OptunaRecord, "begin", fail)
    with pytest.raises(EnvironmentProblem) as caught:
        local()
    assert "Optuna's record of the study: disk is full" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not queries.running(local.db, local.study_id)


def test_a_trial_left_half_asked_is_written_anew(local) -> None:
    local(max_jobs=0)
    storage = optuna.storages.RDBStorage(local.db.url.render_as_string(hide_password=False))
    optuna.load_study(study_name="miras-search/tiny", storage=storage).ask()  # RUNNING, without its parameters
    storage.remove_session()
    storage.engine.dispose()
    local()
    assert [trial.params.get("bias") for trial in trials(local)] == ["l2", "dot", "l2"]
    assert [trial.state.name for trial in trials(local)] == ["COMPLETE"] * 3


def test_tables_of_another_optuna_are_one_line(local) -> None:
    local()
    with local.db.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v9.0.0.a'"))
    with pytest.raises(EnvironmentProblem, match=r"its Optuna tables are not those of Optuna .* name another database"):
        local()


def test_a_later_trial_may_be_told_first(tiny, tmp_path) -> None:
    cells = tiny().cells
    url = parse_database(str(tmp_path / "braces {in} the name.db"))
    record = OptunaRecord(url, "tiny", "accuracy", cells)
    record.reconcile({0: None, 1: None, 2: None})
    record.begin(2)
    record.tell(2, 0.5)
    record.tell(0, "failed")
    record.close()
    assert (tmp_path / "braces {in} the name.db").exists()
    again = OptunaRecord(url, "tiny", "accuracy", cells)
    again.reconcile({0: "failed", 1: 0.25, 2: 0.5})
    again.close()
    storage = optuna.storages.RDBStorage(url.render_as_string().replace("{", "{{").replace("}", "}}"))
    study = optuna.load_study(study_name="miras-search/tiny", storage=storage)
    assert [(trial.state.name, trial.value) for trial in study.get_trials()] == [
        ("FAIL", None),
        ("COMPLETE", 0.25),
        ("COMPLETE", 0.5),
    ]
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.parametrize(
    ("states", "values", "expected"),
    [
        (["complete", "complete"], [0.5, 1.0], 0.75),
        (["complete", "waiting"], [0.5, None], None),
        (["complete", "running"], [0.5, None], None),
        (["complete", "diverged"], [0.5, None], "failed"),
        (["complete", "failed"], [0.5, None], "failed"),
        (["complete", "complete"], [0.5, None], "failed"),
        (["complete"], [math.nan], "failed"),
        ([], [], None),
    ],
)
def test_verdict(states: list[str], values: list[float | None], expected: object) -> None:
    assert verdict(states, values) == expected
