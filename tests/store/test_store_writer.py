from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime

import pytest
from sqlalchemy import select

from miras_search.metrics import METRICS
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.tables import MetricName, Trial, UtcDateTime, decode_value, encode_value
from miras_search.store.types import (
    AttemptState,
    Final,
    JobState,
    LeaseLost,
    NewJob,
    NewTrial,
    Point,
    Run,
    StudyChanged,
    trial_state,
)
from miras_search.store.writer import ERROR_TEXT_LIMIT, Writer

MakeTrial = Callable[..., NewTrial]


@pytest.fixture
def run(writer: Writer, study_id: int) -> Run:
    return writer.begin_run(study_id, provenance={"argv": ["run", "bias.yaml"]})


def start(writer: Writer, run: Run, job_id: int) -> int:
    return writer.start_attempt(job_id, run.id, host="node1", pid=77, device="cuda:0")


def finish(
    writer: Writer, attempt_id: int, state: AttemptState, *finals: Final, final_for_job: bool = True, **changes: object
) -> None:
    values: dict[str, object] = {"last_step": 30, "wall_seconds": 1.5, "peak_memory_bytes": 2**40}
    writer.finish_attempt(attempt_id, state=state, finals=finals, final_for_job=final_for_job, **(values | changes))


def states(db: Database, study_id: int) -> list[str]:
    return [job.state for job in queries.jobs(db, study_id)]


# The study and its plan


def test_a_study_is_stored_once(db: Database, put_study: Callable[..., int]) -> None:
    assert put_study() == put_study()
    assert put_study(name="other") != put_study()
    assert [study.name for study in queries.studies(db)] == ["bias", "other"]


def test_more_seeds_update_the_configuration(db: Database, put_study: Callable[..., int]) -> None:
    first = put_study()
    more = {"name": "bias", "seeds": [3, 1, 4]}
    assert put_study(config=more, config_hash="c2", config_yaml="more", question="Still which?") == first
    study = queries.study(db, "bias")
    assert (study.config, study.config_hash, study.config_yaml) == (more, "c2", "more")
    assert study.question == "Still which?"


def test_another_comparison_under_the_same_name_is_refused(db: Database, put_study: Callable[..., int]) -> None:
    put_study()
    with pytest.raises(StudyChanged, match="--as NAME"):
        put_study(space_hash="s2", config_hash="c2")
    assert queries.study(db, "bias").config_hash == "c1"


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ({"base": {"train": {"steps": 150}}}, {"base": {"train": {"steps": 160}}}, "base.train.steps 150 -> 160"),
        ({"tasks": [{"spec": {"pairs": 4}}]}, {"tasks": [{"spec": {"pairs": 8}}]}, "tasks.0.spec.pairs 4 -> 8"),
        ({"execution": "exact"}, {"tune": {"seeds": [1]}}, "execution exact -> none, tune none -> {'seeds': [1]}"),
        ({"cells": [{"name": "a"}]}, {"cells": [{"name": "c"}]}, "without the cell a, with the cell c"),
        ({"seeds": [1], "cells": [{"name": "a", "x": 1}]}, {"cells": [{"name": "a"}]}, "a setting of its cells"),
        ({str(i): 0 for i in range(5)}, {str(i): 1 for i in range(5)}, "0 0 -> 1, 1 0 -> 1, 2 0 -> 1 and 2 more"),
    ],
)
def test_what_differs_is_told(
    put_study: Callable[..., int], then: dict[str, object], now: dict[str, object], said: str
) -> None:
    put_study(config=then)
    with pytest.raises(StudyChanged, match=re.escape(f"under that name ({said}")):
        put_study(config=now, space_hash="s2", config_hash="c2")


def test_a_configuration_with_nan_is_refused(db: Database, put_study: Callable[..., int]) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        put_study(config={"lr": math.nan})
    assert queries.studies(db) == []


def test_the_plan_can_be_stored_again(db: Database, writer: Writer, study_id: int, new_trial: MakeTrial) -> None:
    before = queries.trials(db, study_id), queries.jobs(db, study_id), queries.change_token(db, study_id)
    writer.put_trials(study_id, [new_trial(number) for number in range(3)])
    writer.put_jobs(study_id, [NewJob(number, "recall", seed) for number in range(3) for seed in (3, 1)])
    assert (queries.trials(db, study_id), queries.jobs(db, study_id), queries.change_token(db, study_id)) == before


def test_settings_with_tuples_are_the_same_settings(
    db: Database, writer: Writer, study_id: int, new_trial: MakeTrial
) -> None:
    settings = {"train": {"betas": (0.9, 0.95), "lr": 0.1 + 0.2}}
    writer.put_trials(study_id, [new_trial(3, settings=settings)])
    writer.put_trials(study_id, [new_trial(3, settings=settings)])
    assert queries.trials(db, study_id)[3].settings == {"train": {"betas": [0.9, 0.95], "lr": 0.1 + 0.2}}


@pytest.mark.parametrize(
    ("change", "says"),
    [({"design_hash": "other"}, "its design differs"), ({"settings": {"train": {"lr": 1.0}}}, "its settings differs")],
)
def test_a_trial_does_not_change_under_its_results(
    writer: Writer, study_id: int, new_trial: MakeTrial, change: dict[str, object], says: str
) -> None:
    with pytest.raises(StudyChanged, match=says):
        writer.put_trials(study_id, [new_trial(1, **change)])


def test_a_trial_may_be_renamed(db: Database, writer: Writer, study_id: int, new_trial: MakeTrial) -> None:
    writer.put_trials(study_id, [new_trial(1, cell="better name", changes={"z": "1", "a": "2"}, role="control")])
    row = queries.trials(db, study_id)[1]
    assert (row.cell, row.role) == ("better name", "control")
    assert list(row.changes.items()) == [("z", "1"), ("a", "2")]  # in the order given


def test_bad_plans_are_refused(db: Database, writer: Writer, study_id: int, new_trial: MakeTrial) -> None:
    with pytest.raises(ValueError, match="no trial 9"):
        writer.put_jobs(study_id, [NewJob(0, "recall", 7), NewJob(9, "recall", 7)])
    with pytest.raises(ValueError, match="no role 'bass'"):
        writer.put_trials(study_id, [new_trial(7), new_trial(8, role="bass")])
    assert len(queries.jobs(db, study_id)) == 6  # all or nothing
    assert len(queries.trials(db, study_id)) == 3


def test_large_seeds_fit(db: Database, writer: Writer, study_id: int) -> None:
    writer.put_jobs(study_id, [NewJob(0, "recall", 2**63 - 1)])
    assert queries.jobs(db, study_id)[-1].seed == 2**63 - 1


# Attempts


def test_the_way_of_one_job(db: Database, writer: Writer, study_id: int, run: Run) -> None:
    job = queries.jobs(db, study_id)[0]
    attempt = start(writer, run, job.id)
    assert states(db, study_id) == ["running"] + ["waiting"] * 5
    assert [row.state for row in queries.trials(db, study_id)] == ["running", "waiting", "waiting"]
    writer.add_points(attempt, [Point(10, "loss", "train", 2.0), Point(20, "loss", "train", 1.0)])
    assert queries.running(db, study_id)[0].last_step == 20
    finish(writer, attempt, "complete", Final("accuracy", "test", 0.9), Final("params", "", 1e6))
    assert queries.running(db, study_id) == []
    assert states(db, study_id) == ["complete"] + ["waiting"] * 5
    assert [row.state for row in queries.trials(db, study_id)] == ["waiting"] * 3  # its other seed has not run
    (row,) = queries.attempts(db, study_id, 0)
    assert (row.state, row.attempt, row.wall_seconds, row.peak_memory_bytes) == ("complete", 1, 1.5, 2**40)
    assert (row.host, row.pid, row.device, row.run_id) == ("node1", 77, "cuda:0", run.id)
    result = queries.results(db, study_id)[0]
    assert result.values == {("accuracy", "test"): 0.9, ("params", ""): 1e6}
    assert result.last_step == 30


def test_a_trial_is_final_when_its_last_job_is(db: Database, writer: Writer, study_id: int, run: Run) -> None:
    base_jobs = [job for job in queries.jobs(db, study_id) if job.trial_number == 0]
    for job, state in zip(base_jobs, ("complete", "diverged"), strict=True):
        finish(writer, start(writer, run, job.id), state)
    assert queries.trials(db, study_id)[0].state == "diverged"
    with db.session() as session:
        finished = session.scalars(select(Trial.finished_at).order_by(Trial.number)).all()
    assert [moment is not None for moment in finished] == [True, False, False]
    writer.put_jobs(study_id, [NewJob(0, "recall", 99)])  # another seed: no longer final
    assert queries.trials(db, study_id)[0].state == "waiting"


@pytest.mark.parametrize(
    ("counts", "state"),
    [
        ({}, "waiting"),
        ({"waiting": 1, "complete": 9}, "waiting"),
        ({"waiting": 1, "running": 1, "failed": 1}, "running"),
        ({"complete": 2, "failed": 1, "diverged": 1}, "failed"),
        ({"complete": 2, "diverged": 1, "failed": 0}, "diverged"),
        ({"complete": 2, "waiting": 0}, "complete"),
    ],
)
def test_the_state_of_a_trial(counts: dict[JobState, int], state: str) -> None:
    assert trial_state(counts) == state


@pytest.mark.parametrize("state", ["failed", "oom", "timeout", "lost"])
def test_a_failed_try_leaves_the_job_waiting_unless_it_was_the_last(
    db: Database, writer: Writer, study_id: int, run: Run, state: AttemptState
) -> None:
    job = queries.jobs(db, study_id)[0]
    finish(writer, start(writer, run, job.id), state, final_for_job=False, error_type="X", error_text="first")
    again = queries.jobs(db, study_id)[0]
    assert (again.state, again.attempts) == ("waiting", 1)
    finish(writer, start(writer, run, job.id), state, error_type="X", error_text="second")
    assert queries.jobs(db, study_id)[0].state == "failed"
    assert [(row.attempt, row.state, row.error_text) for row in queries.attempts(db, study_id, 0)] == [
        (1, state, "first"),
        (2, state, "second"),
    ]


def test_failed_jobs_can_be_tried_again(db: Database, writer: Writer, study_id: int, run: Run) -> None:
    first, second, *_ = queries.jobs(db, study_id)
    finish(writer, start(writer, run, first.id), "failed", Final("wall_seconds", "", 1.0))
    finish(writer, start(writer, run, second.id), "diverged", Final("loss", "test", 9.0))
    assert writer.reset_jobs(study_id, [first.id]) == 1
    assert states(db, study_id) == ["waiting", "diverged", *["waiting"] * 4]
    finish(writer, start(writer, run, first.id), "complete", Final("wall_seconds", "", 2.0))
    assert queries.results(db, study_id)[0].values == {("wall_seconds", ""): 2.0}
    assert writer.reset_jobs(study_id, []) == 0


def test_any_ended_job_can_be_trained_again(
    db: Database, writer: Writer, study_id: int, run: Run, put_study: Callable[..., int]
) -> None:
    first, second, third, *_ = queries.jobs(db, study_id)
    finish(writer, start(writer, run, first.id), "complete", Final("accuracy", "test", 0.5))
    finish(writer, start(writer, run, second.id), "complete", Final("accuracy", "test", 0.6))
    start(writer, run, third.id)  # under way: not to be pulled from under its worker
    assert writer.reset_jobs(put_study(name="other"), [first.id]) == 0
    assert writer.reset_jobs(study_id, [first.id, third.id]) == 1
    assert writer.reset_jobs(study_id, []) == 0
    assert states(db, study_id) == ["waiting", "complete", "running", "waiting", "waiting", "waiting"]
    values = {row.number: row.values for row in queries.results(db, study_id) if row.seed == first.seed}
    assert values == {0: {}, 1: {("accuracy", "test"): 0.6}, 2: {}}
    assert [row.state for row in queries.attempts(db, study_id, 0)] == ["complete"]


def test_a_job_is_not_started_twice(writer: Writer, study_id: int, run: Run) -> None:
    start(writer, run, 1)
    with pytest.raises(ValueError, match="job 1 is running, not waiting"):
        start(writer, run, 1)


def test_an_attempt_ends_once(writer: Writer, study_id: int, run: Run) -> None:
    attempt = start(writer, run, 1)
    finish(writer, attempt, "complete")
    with pytest.raises(LeaseLost, match="is complete, not running"):
        finish(writer, attempt, "failed")
    with pytest.raises(LeaseLost):
        writer.add_points(attempt, [Point(1, "loss", "train", 1.0)])


def test_wrong_endings_are_refused_and_change_nothing(db: Database, writer: Writer, study_id: int, run: Run) -> None:
    attempt = start(writer, run, 1)
    with pytest.raises(ValueError, match="does not end as 'running'"):
        finish(writer, attempt, "running")
    with pytest.raises(ValueError, match="must be final"):
        finish(writer, attempt, "complete", final_for_job=False)
    with pytest.raises(ValueError, match="must be final"):
        finish(writer, attempt, "failed", Final("loss", "test", 1.0), final_for_job=False)
    with pytest.raises(ValueError, match="given twice"):
        finish(writer, attempt, "complete", Final("loss", "test", 1.0), Final("loss", "test", 2.0))
    assert queries.running(db, study_id) != []
    assert queries.results(db, study_id)[0].values == {}


def test_what_is_written_together_is_one_transaction(db: Database, writer: Writer, study_id: int, run: Run) -> None:
    before = queries.change_token(db, study_id)[0]
    with writer.together():
        attempt = start(writer, run, 1)
        writer.add_points(attempt, [Point(1, "grad_norm", "train", 1.0)])
        assert states(db, study_id)[0] == "waiting", "nobody else sees it yet"
        finish(writer, attempt, "complete", Final("loss", "test", 1.0))
    assert states(db, study_id)[0] == "complete"
    assert queries.change_token(db, study_id)[0] == before + 1, "a reader reads anew once"


def test_of_what_is_written_together_all_goes_back_or_none(
    db: Database, writer: Writer, study_id: int, run: Run
) -> None:
    with pytest.raises(ValueError, match="job 1 is running"), writer.together():
        writer.add_points(start(writer, run, 1), [Point(1, "new_one", "train", 1.0)])
        start(writer, run, 1)
    assert set(states(db, study_id)) == {"waiting"}
    writer.add_points(start(writer, run, 2), [Point(1, "new_one", "train", 2.0)])  # its name went back too
    assert [row.value for row in queries.curves(db, study_id, "new_one", "train")] == [2.0]


def test_long_errors_keep_their_end(db: Database, writer: Writer, study_id: int, run: Run) -> None:
    text = "start\x00" + "x" * ERROR_TEXT_LIMIT + "\x00ValueError: bad lr"  # PostgreSQL takes no NUL
    finish(writer, start(writer, run, 1), "failed", error_type="ValueError", error_text=text)
    (row,) = queries.attempts(db, study_id, 0)
    assert row.error_type == "ValueError"
    assert row.error_text is not None
    assert row.error_text.endswith("\N{REPLACEMENT CHARACTER}ValueError: bad lr")
    assert len(row.error_text) == ERROR_TEXT_LIMIT


# What is measured


def test_what_is_not_finite_survives(db: Database, writer: Writer, study_id: int, run: Run) -> None:
    values = [math.nan, math.inf, -math.inf, 1e-320, 0.1 + 0.2]
    attempt = start(writer, run, 1)
    writer.add_points(attempt, [Point(step, "loss", "train", value) for step, value in enumerate(values)])
    curve = [row.value for row in queries.curves(db, study_id, "loss", "train")]
    assert curve[1:] == values[1:]
    assert math.isnan(curve[0])
    finish(writer, attempt, "diverged", Final("loss", "test", math.nan), Final("loss", "train", -math.inf))
    found = queries.results(db, study_id)[0].values
    assert math.isnan(found["loss", "test"])
    assert found["loss", "train"] == -math.inf


def test_a_finite_value_carries_no_flag() -> None:
    assert encode_value(1) == (1.0, None)
    assert encode_value(math.nan) == (None, "nan")
    assert decode_value(None, "-inf") == -math.inf


def test_points_can_be_sent_again(db: Database, writer: Writer, study_id: int, run: Run) -> None:
    attempt = start(writer, run, 1)
    writer.add_points(attempt, [])
    writer.add_points(attempt, [Point(step, "loss", split, 1.0) for step in (1, 2) for split in ("train", "test")])
    again = [Point(3, "loss", "train", 3.0), Point(2, "loss", "train", 7.0), Point(2, "loss", "train", 2.0)]
    writer.add_points(attempt, again)
    curve = [(row.step, row.value) for row in queries.curves(db, study_id, "loss", "train")]
    assert curve == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert [row.value for row in queries.curves(db, study_id, "loss", "test")] == [1.0, 1.0]
    writer.add_points(attempt, [Point(1, "accuracy", "test", 0.0)])  # late and lower: the last step stays
    assert queries.running(db, study_id)[0].last_step == 3


def test_metrics_are_described_in_the_database(
    db: Database, writer: Writer, study_id: int, run: Run, put_study: Callable[..., int]
) -> None:
    writer.add_points(start(writer, run, 1), [Point(1, "grad_norm", "train", 1.0)])
    put_study()
    with db.session() as session:
        rows = {row.name: (row.direction, row.unit, row.split, row.help) for row in session.scalars(select(MetricName))}
    known = {name: (metric.direction, metric.unit, metric.split, metric.help) for name, metric in METRICS.items()}
    assert rows == known | {"grad_norm": (None, None, None, None)}


def test_artifacts(db: Database, writer: Writer, study_id: int, run: Run) -> None:
    attempt = start(writer, run, 1)
    writer.add_artifact(attempt, kind="checkpoint", uri="0001/last.safetensors", sha256="ab" * 32, bytes=2**33, step=30)
    (row,) = queries.artifacts(db, study_id)
    assert (row.kind, row.uri, row.bytes, row.step) == ("checkpoint", "0001/last.safetensors", 2**33, 30)
    assert (row.cell, row.task, row.seed, row.attempt) == ("dot", "recall", 3, 1)


def test_a_naive_time_is_refused(db: Database) -> None:
    with pytest.raises(ValueError, match="naive datetime"):
        UtcDateTime().process_bind_param(datetime(2026, 1, 1), db.engine.dialect)
