"""The only writer: the driver turns events into rows here, one transaction a call.

Every call is safe to repeat after a crash: studies, trials and jobs are keyed by what they are, points by their step. A
driver whose lease was taken over gets `LeaseLost` instead of mixing its rows with another's.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from datetime import datetime
from typing import cast

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select, update
from sqlalchemy.orm import Session

from miras_search.store import attempts, changes, lease, tables
from miras_search.store.database import Database
from miras_search.store.measured import PointRow, insert_points, point_rows
from miras_search.store.metric_names import metric_ids, register_metrics
from miras_search.store.states import find_attempt, open_attempt, reach, refresh_trials, set_jobs, touch
from miras_search.store.tables import Attempt, FinalMetric, Job, Study, Trial, utcnow
from miras_search.store.types import (
    ENDED_ATTEMPTS,
    ENDED_RUNS,
    FINAL_STATES,
    ROLES,
    AttemptState,
    Final,
    JobState,
    LostAttempt,
    NewJob,
    NewTrial,
    PlainPoint,
    Run,
    RunStatus,
    StudyChanged,
)

ERROR_TEXT_LIMIT = 20_000  # characters; the end of a traceback is the part that tells


class Writer:
    """Writes studies, trials, jobs, attempts and what they measure."""

    def __init__(self, db: Database, *, now: Callable[[], datetime] = utcnow) -> None:
        """Write to `db`; `now` is the clock (aware), which a test may replace."""
        self.db = db
        self._now = now
        self._joined: Connection | None = None
        self._touched: set[int] = set()  # studies that are written about in the transaction that is open
        self._names: Mapping[str, int] = {}  # the ids of metrics that are known to be stored
        self._studies: dict[int, int] = {}  # of the attempts that are known to be stored
        self._reached: dict[int, int] = {}  # steps that attempts have come to, and points, not sent yet
        self._points: list[PointRow] = []

    @contextmanager
    def together(self) -> Iterator[None]:
        """One transaction for all that is written within about attempts; a commit costs as much as many rows.

        Committed at the end; an exception within rolls everything back. Nothing else may be written meanwhile.
        """
        with self._writing():
            yield

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """The transaction that is open, or one of its own."""
        if self._joined is not None:
            yield self._joined
            return
        try:
            with self.db.transaction() as connection:
                self._joined = connection
                yield connection
                self._send(connection)
                for study_id in sorted(self._touched):
                    touch(connection, study_id, self._now())
        except BaseException:
            self._names, self._studies = {}, {}  # new ones among them are not stored
            raise
        finally:
            self._joined = None
            self._touched.clear()
            self._reached.clear()
            self._points.clear()

    def _send(self, connection: Connection) -> None:
        """Write what has been measured: one statement for many messages costs less than one for each."""
        if self._reached:
            reach(connection, self._reached)
            insert_points(connection, self._points)
            self._reached.clear()
            self._points.clear()

    def _ids(self, connection: Connection, wanted: Set[str]) -> Mapping[str, int]:
        """The ids of the metrics of these names."""
        if not wanted <= self._names.keys():
            self._names = {**self._names, **metric_ids(connection, wanted)}
        return self._names

    # The study and its plan

    def put_study(
        self,
        *,
        name: str,
        question: str,
        kind: str,
        metric: str,
        config_yaml: str,
        config: Mapping[str, object],
        config_hash: str,
        space_hash: str,
        takeover: bool = False,
    ) -> int:
        """Store a study, or find it; returns its id.

        `space_hash` covers what is compared: everything but the seeds and the prose. With the same one, the stored
        configuration is brought up to date (more seeds); with another one, StudyChanged is raised. While a run is live
        its configuration stays: StudyBusy, unless `takeover`.
        """
        now = self._now()
        values = {
            "question": question,
            "kind": kind,
            "metric": metric,
            "config_yaml": config_yaml,
            "config": _plain(config),
            "config_hash": config_hash,
        }
        with self.db.writing() as session:
            register_metrics(session)
            stored = session.execute(select(Study).where(Study.name == name)).scalar_one_or_none()
            if stored is None:
                row = insert(Study).values(
                    name=name, space_hash=space_hash, changes=1, created_at=now, updated_at=now, **values
                )
                return int(session.execute(row.returning(Study.id)).scalar_one())
            if stored.space_hash != space_hash:
                raise StudyChanged(
                    f"study {name!r}: the file no longer compares what this database holds under that name "
                    f"({changes.told(stored.config, cast(Mapping[str, object], values['config']))}): run it with "
                    f"`--as NAME` to keep both, or name another database with --db"
                )
            if any(getattr(stored, key) != value for key, value in values.items()):
                lease.give_up_dead(session, stored.id, now, takeover=takeover)
                session.execute(update(Study).where(Study.id == stored.id).values(**values))
                touch(session.connection(), stored.id, now)
            return stored.id

    def put_trials(self, study_id: int, trials: Sequence[NewTrial]) -> None:
        """Store the cells that are missing, by number. Names of known cells are brought up to date.

        Raises StudyChanged when a stored number is another design or has other settings: results would be mislabelled.
        """
        now = self._now()
        with self.db.writing() as session:
            there = _numbered(study_id, (trial.number for trial in trials))
            known = {row.number: row for row in session.scalars(select(Trial).where(there))}
            new: list[dict[str, object]] = []
            times = {"created_at": now, "updated_at": now}
            changed = False
            for trial in trials:
                if trial.role not in ROLES:
                    raise ValueError(f"trial {trial.number}: no role {trial.role!r}")
                names = {"cell": trial.cell, "role": trial.role, "changes": dict(trial.changes)}
                design, settings = _plain(trial.design), _plain(trial.settings)
                stored = known.get(trial.number)
                if stored is None:
                    about = {"design": design, "settings": settings, "design_hash": trial.design_hash, **names}
                    new.append({"study_id": study_id, "number": trial.number, "state": "waiting", **times, **about})
                    continue
                if stored.design_hash != trial.design_hash or stored.settings != settings:
                    what = "design" if stored.design_hash != trial.design_hash else "settings"
                    raise StudyChanged(
                        f"trial {trial.number} ({trial.cell}): its {what} differs from what this database holds "
                        f"(there: {stored.cell}): run the study with `--as NAME` to keep both"
                    )
                if any(getattr(stored, key) != value for key, value in names.items()):
                    session.execute(update(Trial).where(Trial.id == stored.id).values(updated_at=now, **names))
                    changed = True
            if new:
                session.execute(insert(Trial), new)
            if new or changed:
                touch(session.connection(), study_id, now)

    def put_jobs(self, study_id: int, jobs: Sequence[NewJob]) -> None:
        """Store the jobs that are missing, by (trial, task, seed). The order in which seeds first come is kept.

        Raises ValueError for a trial number that the study does not have.
        """
        now = self._now()
        with self.db.writing() as session:
            there = _numbered(study_id, (job.trial_number for job in jobs))
            ids = dict(session.execute(select(Trial.number, Trial.id).where(there)).all())
            stored = select(Job.trial_id, Job.task, Job.seed).join(Trial).where(there)
            known: set[tuple[int, str, int]] = set(session.execute(stored))
            rows: list[dict[str, object]] = []
            for job in jobs:
                if job.trial_number not in ids:
                    raise ValueError(f"study {study_id} has no trial {job.trial_number}: put_trials comes first")
                key = (ids[job.trial_number], job.task, job.seed)
                if key not in known:
                    known.add(key)
                    rows.append(dict(trial_id=key[0], task=job.task, seed=job.seed, state="waiting", updated_at=now))
            if rows:
                session.execute(insert(Job), rows)
                refresh_trials(session.connection(), now, {int(str(row["trial_id"])) for row in rows})
                touch(session.connection(), study_id, now)

    # Runs

    def begin_run(self, study_id: int, *, provenance: Mapping[str, object], takeover: bool = False) -> Run:
        """Take the study's lease for this process. A dead run's lease is taken over at once.

        Raises StudyBusy while another run is live, unless `takeover`.
        """
        now, token = self._now(), uuid.uuid4().hex
        host, pid_space = lease.this_host()
        with self.db.writing() as session:
            lease.give_up_dead(session, study_id, now, takeover=takeover)
            run_id = session.execute(
                insert(tables.Run)
                .values(
                    study_id=study_id,
                    status="running",
                    host=host,
                    pid_space=pid_space,
                    pid=os.getpid(),
                    lease_token=token,
                    provenance=_plain(provenance),
                    started_at=now,
                    heartbeat_at=now,
                )
                .returning(tables.Run.id)
            ).scalar_one()
            touch(session.connection(), study_id, now)
        return Run(int(run_id), study_id, token)

    def heartbeat(self, run_id: int) -> None:
        """Say that the run lives; every few seconds. Raises LeaseLost once another run has taken over."""
        with self.db.writing() as session:
            lease.require(session.connection(), run_id)
            session.execute(update(tables.Run).where(tables.Run.id == run_id).values(heartbeat_at=self._now()))

    def end_run(self, run_id: int, status: RunStatus) -> None:
        """Give the lease back. Changes nothing when another run has taken it already."""
        if status not in ENDED_RUNS:
            raise ValueError(f"a run does not end as {status!r}: {', '.join(ENDED_RUNS)}")
        now = self._now()
        with self.db.writing() as session:
            run = session.get_one(tables.Run, run_id)
            if run.status == "running":
                ended = update(tables.Run).where(tables.Run.id == run_id)
                session.execute(ended.values(status=status, ended_at=now, heartbeat_at=now))
                touch(session.connection(), run.study_id, now)

    def reconcile(self, study_id: int) -> list[LostAttempt]:
        """Close what earlier runs left open: their running attempts become `lost`, the jobs wait again.

        Call it after `begin_run`; attempts of the live run are left alone.
        """
        now = self._now()
        with self.db.writing() as session:
            left = session.execute(
                select(Attempt, Job, Trial.cell)
                .join(Job, Attempt.job_id == Job.id)
                .join(Trial, Job.trial_id == Trial.id)
                .join(tables.Run, Attempt.run_id == tables.Run.id)
                .where(Trial.study_id == study_id, Attempt.state == "running", tables.Run.status != "running")
                .order_by(Attempt.id)
            )
            lost = [
                LostAttempt(attempt.id, job.id, attempt.attempt, cell, job.task, job.seed, attempt.run_id)
                for attempt, job, cell in left
            ]
            if lost:
                closed = update(Attempt).where(Attempt.id.in_([row.attempt_id for row in lost]))
                session.execute(closed.values(state="lost", ended_at=now))
                set_jobs(session.connection(), now, [row.job_id for row in lost], "waiting")
                touch(session.connection(), study_id, now)
            return lost

    def reset_jobs(self, study_id: int, job_ids: Sequence[int]) -> int:
        """Let ended jobs wait again, whatever they found; returns how many did.

        Their final numbers go, attempts and curves stay on record. Jobs that wait or run are left alone.
        """
        with self.db.writing() as session:
            ended = select(Job.id).join(Trial).where(Trial.study_id == study_id, Job.state.in_(FINAL_STATES))
            return self._reset(session, study_id, list(session.scalars(ended.where(Job.id.in_(job_ids)))))

    def _reset(self, session: Session, study_id: int, job_ids: Sequence[int]) -> int:
        if job_ids:
            now = self._now()
            session.execute(delete(FinalMetric).where(FinalMetric.job_id.in_(job_ids)))
            set_jobs(session.connection(), now, job_ids, "waiting")
            touch(session.connection(), study_id, now)
        return len(job_ids)

    # Attempts

    def start_attempt(self, job_id: int, run_id: int, *, host: str, pid: int, device: str) -> int:
        """Begin a try of a waiting job; returns the attempt's id.

        Raises LeaseLost when the run has lost its lease, ValueError when the job is not waiting.
        """
        about = {"host": host, "pid": pid, "device": device}
        with self._writing() as connection:
            attempt_id, study_id = attempts.start(connection, job_id, run_id, self._now(), about)
            self._touched.add(study_id)
            return attempt_id

    def add_points(self, attempt_id: int, points: Sequence[PlainPoint]) -> None:
        """Append to an attempt's curves. A point that is there already is replaced.

        Raises LeaseLost when the attempt was given up for lost.
        """
        if not points:
            return
        with self._writing() as connection:
            names = self._ids(connection, {point[1] for point in points})
            self._points += point_rows(attempt_id, points, names)
            self._reached[attempt_id] = max(self._reached.get(attempt_id, 0), *(point[0] for point in points))
            if attempt_id not in self._studies:
                self._studies[attempt_id] = find_attempt(connection, attempt_id).study_id
            self._touched.add(self._studies[attempt_id])

    def finish_attempt(
        self,
        attempt_id: int,
        *,
        state: AttemptState,
        finals: Sequence[Final],
        last_step: int | None,
        wall_seconds: float | None,
        peak_memory_bytes: int | None,
        error_type: str | None = None,
        error_text: str | None = None,
        final_for_job: bool,
    ) -> None:
        """End an attempt: its state, the job's finals and state, and the trial's state, in one transaction.

        With `final_for_job` the job becomes complete, pruned, diverged, or (for every other state) failed; without it
        the job waits for another try, and there must be no finals. Raises LeaseLost when the attempt was given up for
        lost.
        """
        if state not in ENDED_ATTEMPTS:
            raise ValueError(f"an attempt does not end as {state!r}: {', '.join(ENDED_ATTEMPTS)}")
        if not final_for_job and (finals or state in ("complete", "diverged")):
            raise ValueError(f"a {state} attempt with {len(finals)} finals must be final for its job")
        job_state: JobState = "waiting"
        if final_for_job:
            job_state = state if state in ("complete", "pruned", "diverged") else "failed"
        with self._writing() as connection:
            self._send(connection)
            attempt = open_attempt(connection, attempt_id)
            ended = {
                "state": state,
                "wall_seconds": wall_seconds,
                "peak_memory_bytes": peak_memory_bytes,
                "last_step": attempt.last_step if last_step is None else last_step,
                "error_type": _clean(error_type, 200),
                "error_text": _clean(error_text, ERROR_TEXT_LIMIT),
            }
            names = self._ids(connection, {final.name for final in finals})
            attempts.finish(connection, attempt, finals, self._now(), ended=ended, job_state=job_state, names=names)
            self._touched.add(attempt.study_id)

    def add_artifact(
        self, attempt_id: int, *, kind: str, uri: str, sha256: str, bytes: int, step: int | None = None
    ) -> None:
        """Note a file that an attempt left (checkpoint, log). The file itself stays where `uri` says."""
        about = {"kind": kind, "uri": uri, "sha256": sha256, "bytes": bytes, "step": step, "created_at": self._now()}
        with self._writing() as connection:
            connection.execute(insert(tables.Artifact), {"attempt_id": attempt_id, **about})
            self._touched.add(find_attempt(connection, attempt_id).study_id)


def _numbered(study_id: int, numbers: Iterable[int]) -> ColumnElement[bool]:
    """The study's trials of these numbers: one more trial of a search must not cost a look at all of them."""
    return and_(Trial.study_id == study_id, Trial.number.in_(sorted(set(numbers))))


def _plain(data: Mapping[str, object]) -> dict[str, object]:
    """The data as JSON gives it back, so that what is stored compares equal to what was given (tuples become lists)."""
    plain: dict[str, object] = json.loads(json.dumps(dict(data), allow_nan=False))
    return plain


def _clean(text: str | None, limit: int) -> str | None:
    """The end of the text, without NUL characters, which PostgreSQL refuses."""
    return None if text is None else text.replace("\x00", "\N{REPLACEMENT CHARACTER}")[-limit:]
