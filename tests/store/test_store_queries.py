from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import optuna
import pytest
from sqlalchemy import text

from miras_search.store import queries
from miras_search.store.database import Database, apply_pragmas
from miras_search.store.types import FINAL_STATES, JOB_STATES, Final, NewJob, NewTrial, Point, StudyNotFound
from miras_search.store.writer import Writer


class Clock(Protocol):
    def __call__(self) -> object: ...
    def move(self, seconds: float) -> None: ...


def train(writer: Writer, job_id: int, run_id: int, accuracy: float, steps: int = 2) -> None:
    attempt = writer.start_attempt(job_id, run_id, host="h", pid=1, device="cpu")
    writer.add_points(attempt, [Point(step, "loss", "train", job_id + step / 10) for step in range(steps)])
    writer.finish_attempt(
        attempt,
        state="complete",
        finals=[Final("accuracy", "test", accuracy), Final("params", "", 1000)],
        last_step=steps,
        wall_seconds=1.0,
        peak_memory_bytes=1,
        final_for_job=True,
    )


@pytest.fixture
def reader(writer: Writer, where: str, study_id: int) -> Database:
    """The same database, as the dashboard opens it, with two of the six jobs done and one under way."""
    db = writer.db
    run = writer.begin_run(study_id, provenance={})
    first, second, third, *_ = queries.jobs(db, study_id)
    train(writer, first.id, run.id, 0.5)
    train(writer, second.id, run.id, 0.75)
    attempt = writer.start_attempt(third.id, run.id, host="h", pid=1, device="cpu")
    writer.add_points(attempt, [Point(4, "loss", "train", 9.0)])
    return db


def counts(**some: int) -> dict[str, int]:
    return dict.fromkeys(JOB_STATES, 0) | some


def test_some_of_the_final_numbers(reader: Database, study_id: int) -> None:
    assert queries.finals(reader, study_id, "accuracy", "test") == [("recall", 0.5), ("recall", 0.75)]
    assert queries.finals(reader, study_id, "accuracy", "train") == []
    whole, some = queries.results(reader, study_id), queries.results(reader, study_id, metrics={"params"})
    assert [row.values for row in some[:1]] == [{("params", ""): 1000.0}]
    assert [(row.number, row.seed, row.state) for row in some] == [(row.number, row.seed, row.state) for row in whole]
    assert all(not row.values for row in queries.results(reader, study_id, metrics=()))


def test_a_study_with_its_counts(reader: Database, clock: Clock) -> None:
    (study,) = queries.studies(reader)
    assert study == queries.study(reader, "bias")
    assert (study.name, study.kind, study.metric, study.question) == ("bias", "ablation", "accuracy", "Which bias?")
    assert study.config == {"name": "bias", "seeds": [3, 1]}
    assert study.trials == 3
    assert study.jobs == counts(complete=2, running=1, waiting=3)
    assert study.created_at == clock()  # aware, to the microsecond


def test_studies_do_not_mix(reader: Database, writer: Writer, put_study: Callable[..., int]) -> None:
    other = put_study(name="other")
    writer.put_trials(other, [NewTrial(0, "lonely", "base", {}, {}, {}, "x")])
    writer.put_jobs(other, [NewJob(0, "copy", 1)])
    assert [(row.trials, sum(row.jobs.values())) for row in queries.studies(reader)] == [(3, 6), (1, 1)]
    assert [row.cell for row in queries.trials(reader, other)] == ["lonely"]
    assert [row.task for row in queries.jobs(reader, other)] == ["copy"]
    assert [row.task for row in queries.results(reader, other)] == ["copy"]
    for nothing in (queries.curves(reader, other, "loss", "train"), queries.running(reader, other)):
        assert nothing == []
    assert queries.runs(reader, other) == []
    assert queries.attempts(reader, other, 0) == []


def test_an_unknown_study_names_what_there_is(db: Database, put_study: Callable[..., int]) -> None:
    with pytest.raises(StudyNotFound, match="miras-search run"):
        queries.study(db, "bias")
    put_study(name="bias")
    put_study(name="retention")
    with pytest.raises(StudyNotFound, match=r"no study 'baise': did you mean 'bias'\?"):
        queries.study(db, "baise")
    with pytest.raises(StudyNotFound, match="it holds bias, retention"):
        queries.study(db, "zzz")


def test_trials_come_by_number_with_their_jobs(reader: Database, study_id: int) -> None:
    rows = queries.trials(reader, study_id)
    assert [(row.number, row.cell, row.role) for row in rows] == [
        (0, "dot", "base"),
        (1, "cell 1", "cell"),
        (2, "cell 2", "cell"),
    ]
    assert [row.jobs for row in rows] == [counts(complete=1, waiting=1)] * 2 + [counts(running=1, waiting=1)]
    assert list(rows[1].changes.items()) == [("bias", "level 1"), ("algorithm", "gd")]
    assert rows[1].design == {"bias": {"lp": {"p": 1.5}}, "number": 1}
    assert rows[1].design_hash == "d1"


def test_early_seeds_of_all_cells_come_first(db: Database, writer: Writer, study_id: int) -> None:
    # three tasks' worth of jobs, in an order that is not the one to run them in
    more = [NewJob(number, task, seed) for task in ("copy", "mqar") for number in (2, 0, 1) for seed in (3, 1, 2)]
    writer.put_jobs(study_id, more)
    order = [(job.seed, job.trial_number, job.task) for job in queries.jobs(db, study_id)]
    tasks = ("recall", "copy", "mqar")
    assert order == [
        (seed, number, task)
        for seed in (3, 1, 2)  # as the study lists them, the new one last
        for number in range(3)
        for task in tasks
        if (task, seed) != ("recall", 2)
    ]


def test_jobs_tell_how_far_they_are(reader: Database, study_id: int) -> None:
    everything = queries.jobs(reader, study_id)
    assert [job.state for job in everything] == ["complete", "complete", "running", "waiting", "waiting", "waiting"]
    assert [job.attempts for job in everything] == [1, 1, 1, 0, 0, 0]


def test_results_have_a_row_for_every_job(reader: Database, study_id: int) -> None:
    rows = queries.results(reader, study_id)
    assert [(row.cell, row.seed, row.state, row.last_step) for row in rows] == [
        ("dot", 3, "complete", 2),
        ("dot", 1, "waiting", None),
        ("cell 1", 3, "complete", 2),
        ("cell 1", 1, "waiting", None),
        ("cell 2", 3, "running", 4),
        ("cell 2", 1, "waiting", None),
    ]
    assert rows[2].values == {("accuracy", "test"): 0.75, ("params", ""): 1000}
    assert rows[4].values == {}
    assert (rows[2].role, rows[2].number, rows[2].task) == ("cell", 1, "recall")
    assert rows[2].changes == {"bias": "level 1", "algorithm": "gd"}


def test_curves(reader: Database, study_id: int) -> None:
    every = queries.curves(reader, study_id, "loss", "train")
    first, second, third = [job.id for job in queries.jobs(reader, study_id)[:3]]
    assert [(row.cell, row.step, row.value) for row in every] == [
        ("dot", 0, first),
        ("dot", 1, first + 0.1),
        ("cell 1", 0, second),
        ("cell 1", 1, second + 0.1),
        ("cell 2", 4, 9.0),  # still under way
    ]
    assert third not in (first, second)
    assert queries.curves(reader, study_id, "loss", "train", cells=["cell 1", "no"]) == every[2:4]
    assert queries.curves(reader, study_id, "loss", "train", task="recall") == every
    for nothing in (
        queries.curves(reader, study_id, "loss", "test"),
        queries.curves(reader, study_id, "no metric", "train"),
        queries.curves(reader, study_id, "loss", "train", task="copy"),
        queries.curves(reader, study_id, "loss", "train", cells=[]),
    ):
        assert nothing == []


def test_curve_names(reader: Database, writer: Writer, study_id: int) -> None:
    assert queries.curve_names(reader, study_id) == [("loss", "train")]
    attempt = queries.attempts(reader, study_id, 2)[0].id
    writer.add_points(attempt, [Point(4, name, "validation", 1.0) for name in ("grad_norm", "loss", "accuracy")])
    assert queries.curve_names(reader, study_id) == [
        ("accuracy", "validation"),
        ("loss", "train"),
        ("loss", "validation"),
        ("grad_norm", "validation"),  # outside the registry, so last
    ]
    assert queries.curve_names(reader, study_id + 1) == []


def test_attempts_of_one_trial_or_of_all(reader: Database, study_id: int) -> None:
    every = queries.attempts(reader, study_id)
    assert [row.state for row in every] == ["complete", "complete", "running"]
    assert every == [row for number in range(3) for row in queries.attempts(reader, study_id, number)]


def test_running(reader: Database, study_id: int, clock: Clock) -> None:
    (row,) = queries.running(reader, study_id)
    assert (row.cell, row.task, row.seed, row.last_step, row.started_at) == ("cell 2", "recall", 3, 4, clock())


def test_every_write_changes_the_token_though_the_clock_stands_still(
    db: Database, writer: Writer, put_study: Callable[..., int]
) -> None:
    study_id, other = put_study(), put_study(name="other")
    seen = {queries.change_token(db, study_id)}
    overall = {queries.change_token(db, None)}

    def changed() -> None:
        token, both = queries.change_token(db, study_id), queries.change_token(db, None)
        assert token not in seen
        assert both not in overall
        seen.add(token)
        overall.add(both)

    untouched = queries.change_token(db, other)
    writer.put_trials(study_id, [NewTrial(0, "dot", "base", {}, {}, {}, "x")])
    changed()
    writer.put_jobs(study_id, [NewJob(0, "copy", 1), NewJob(0, "copy", 2)])
    changed()
    run = writer.begin_run(study_id, provenance={})
    changed()
    attempt = writer.start_attempt(1, run.id, host="h", pid=1, device="cpu")
    changed()
    writer.add_points(attempt, [Point(1, "loss", "train", 1.0)])
    changed()
    writer.add_artifact(attempt, kind="log", uri="x", sha256="0", bytes=1)
    changed()
    writer.finish_attempt(
        attempt, state="failed", finals=[], last_step=1, wall_seconds=1, peak_memory_bytes=None, final_for_job=True
    )
    changed()
    writer.reset_jobs(study_id, [1])
    changed()
    writer.start_attempt(1, run.id, host="h", pid=1, device="cpu")
    changed()
    writer.end_run(run.id, "interrupted")
    changed()
    writer.reconcile(study_id)
    changed()
    put_study(config_hash="c2")
    changed()
    assert queries.change_token(db, other) == untouched


def test_what_writes_nothing_keeps_the_token(db: Database, writer: Writer, study_id: int, clock: Clock) -> None:
    run = writer.begin_run(study_id, provenance={})
    token = queries.change_token(db, study_id)
    clock.move(1)
    writer.heartbeat(run.id)
    assert writer.reset_jobs(study_id, [1]) == 0  # it still waits
    assert writer.reconcile(study_id) == []
    assert queries.change_token(db, study_id) == token


def test_the_token_of_nothing(db: Database) -> None:
    assert queries.change_token(db, None) == (0, "")
    assert queries.change_token(db, 7) == (0, "")


def test_a_read_only_reader_follows_the_driver(db: Database, writer: Writer, study_id: int, where: str) -> None:
    with Database.open(where, read_only=True) as reader:
        before = queries.change_token(reader, study_id)
        run = writer.begin_run(study_id, provenance={})
        train(writer, 1, run.id, 0.5)
        assert queries.change_token(reader, study_id) != before
        for query in (queries.trials, queries.jobs, queries.results, queries.runs):
            assert query(reader, study_id) == query(db, study_id)
        assert queries.curves(reader, study_id, "loss", "train") == queries.curves(db, study_id, "loss", "train")
        assert queries.attempts(reader, study_id, 0) == queries.attempts(db, study_id, 0)


def test_counts_agree_after_any_order_of_events(db: Database, writer: Writer, study_id: int) -> None:
    """The kept states (trial, counters) stay what the rows below them say."""
    chance = random.Random(0)
    run = writer.begin_run(study_id, provenance={})
    open_attempts: list[int] = []
    for _ in range(40):
        waiting = [job for job in queries.jobs(db, study_id) if job.state == "waiting"]
        if open_attempts and (not waiting or chance.random() < 0.5):
            state = chance.choice(["complete", "diverged", "failed", "oom"])
            writer.finish_attempt(
                open_attempts.pop(chance.randrange(len(open_attempts))),
                state=state,
                finals=[],
                last_step=None,
                wall_seconds=None,
                peak_memory_bytes=None,
                final_for_job=state in ("complete", "diverged") or chance.random() < 0.5,
            )
        elif waiting:
            job = chance.choice(waiting)
            open_attempts.append(writer.start_attempt(job.id, run.id, host="h", pid=1, device="cpu"))
        else:
            ended = [job.id for job in queries.jobs(db, study_id) if job.state in FINAL_STATES]
            again = chance.sample(ended, 1 + chance.randrange(len(ended)))
            assert writer.reset_jobs(study_id, again) == len(again)
        rows = queries.trials(db, study_id)
        jobs = queries.jobs(db, study_id)
        for row in rows:
            mine = [job.state for job in jobs if job.trial_number == row.number]
            assert row.jobs == counts(**{state: mine.count(state) for state in mine})
            if "running" in mine or "waiting" in mine:
                assert row.state == ("running" if "running" in mine else "waiting")
            else:
                assert row.state == max(mine, key=JOB_STATES.index)
        assert len(queries.running(db, study_id)) == len(open_attempts)


def test_optuna_lives_in_the_same_file(tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = tmp_path / "miras.db"
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    apply_pragmas(storage.engine)
    search = optuna.create_study(storage=storage, study_name="search")
    with Database.open(str(path), create=True) as db:
        writer = Writer(db)
        kept = writer.put_study(
            name="search",
            question="?",
            kind="ablation",
            metric="accuracy",
            config_yaml="",
            config={},
            config_hash="c",
            space_hash="s",
        )
        search.tell(search.ask(), 0.5)
        assert db.upgrade() == db.revision()
        with db.session() as session:  # each has a version table of its own
            assert session.scalar(text("SELECT count(*) FROM alembic_version")) == 1
            assert session.scalar(text("SELECT count(*) FROM ms_alembic_version")) == 1
        optuna.delete_study(study_name="search", storage=storage)
        assert queries.study(db, "search").id == kept
    storage.engine.dispose()


def test_reading_loads_nothing_heavy() -> None:
    code = (
        "import sys; import miras_search.store.queries, miras_search.store.writer; "
        "print([name for name in ('torch', 'ray', 'optuna', 'alembic', 'pandas', 'streamlit') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
