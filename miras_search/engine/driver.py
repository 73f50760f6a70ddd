"""Run a study: store its plan, train what is missing, keep the books. The driver is the only writer of the database.

Running the same study again does what is left: nothing when it is finished. A run that ends early, in whatever way,
leaves rows from which the next one goes on; `run_study` says what each kind of end raises.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from miras_search import compiler
from miras_search.engine.budget import Budget, BudgetSpent
from miras_search.engine.capacity import check_count, check_executor, check_room, make_executor
from miras_search.engine.checkpoints import Checkpoints
from miras_search.engine.corpora import KEY, check_corpora, corpora
from miras_search.engine.events import (
    AttemptLost,
    Event,
    Interrupted,
    RunSummary,
    Stopping,
    StudyFinished,
    StudyStarted,
)
from miras_search.engine.jobs import new_jobs, new_trials, possible_jobs, put_study
from miras_search.engine.lease import Heartbeat
from miras_search.engine.loop import Hooks, JobLoop
from miras_search.engine.messages import EVALUATION, TRAINING, Executor
from miras_search.engine.provenance import provenance
from miras_search.engine.record import Record
from miras_search.engine.search import SearchRun
from miras_search.engine.signals import Signals
from miras_search.engine.trained import Trained
from miras_search.engine.tried import check_options
from miras_search.engine.tuning import TunedJobs
from miras_search.errors import MirasError
from miras_search.metrics import METRICS
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import FINAL_STATES, JobRow, LeaseLost
from miras_search.store.writer import Writer
from miras_search.study.study import Study


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a study is run; what it means is the study's own business."""

    executor: str = "auto"
    """auto, local or ray."""
    workers: int | None = None
    """Jobs at once; as many as there is room for when None."""
    address: str | None = None
    """Of a Ray cluster. None starts a Ray of its own."""
    max_jobs: int | None = None
    """Train at most so many jobs, then end in order."""
    retry_failed: bool = False
    """Try failed jobs again."""
    trial: int | None = None
    """Train all jobs of this one trial anew, and nothing else."""
    checkpoints: Path | None = None
    """Where the trained parameters go; `checkpoints/` beside the database when None."""
    takeover: bool = False
    """Take the lease from a run that looks alive."""
    grace: float = 20.0
    """Seconds that trainings have to save themselves when the run ends early."""
    entry: str | None = None
    """What runs a job in a worker, as `module:function`; what trains, or evaluates, when None."""

    def check(self, study: Study, *, stored: bool) -> None:
        """Raise MirasError for what no run of the study can be given; at best before there is a database.

        One that is `stored` may be through, and one of which no job is to be trained now needs no room either.
        """
        check_executor(self.executor, self.workers)
        check_count("max_jobs", self.max_jobs, 0)
        if self.trial is not None and not 0 <= self.trial < len(study.trials) and study.search is None:
            raise MirasError(f"trial: {self.trial}: {study.name} has trials 0 to {len(study.trials) - 1}")
        trains = study.evaluated is None
        if trains and study.resources.kernels == "compiled" and self.address is None:  # a cluster has its own
            compiler.check()
        if trains and not stored:
            check_options(study)
        if not stored and self.max_jobs != 0:
            cpus, gpus = study.resources.cpus, study.resources.gpus
            check_room(self.executor, cpus=cpus, gpus=gpus, workers=self.workers, address=self.address)


class _Stop(Exception):
    """A signal has asked the run to end."""


def run_study(study: Study, db: Database, options: RunOptions, on_event: Callable[[Event], None]) -> RunSummary:
    """Train the jobs of a study that are missing in the database, and tell `on_event` about it.

    Returns how the study stands, also where a budget of its resources has ended the run. Failed and diverged jobs are
    counted, not raised.

    Raises:
        Interrupted: SIGINT, SIGTERM or SIGHUP came. Running trainings have saved themselves, as far as `grace` allowed;
            their attempts are recorded as lost and their jobs wait.
        StudyBusy: another run of this study is alive.
        StudyChanged: the database holds another study of that name.
        LeaseLost: another run took this study over, with `takeover`.
        EnvironmentProblem: the database, Ray, a GPU or the disk let the run down.
        MirasError: a trial, executor or address that does not exist.
    """
    return _Run(study, db, options, on_event).go()


def _once(jobs: Sequence[JobRow]) -> Callable[[], list[JobRow]]:
    """A source that has nothing beyond these."""
    left = list(jobs)

    def more() -> list[JobRow]:
        found = list(left)
        left.clear()
        return found

    return more


class _Run:
    """One invocation of the driver."""

    def __init__(self, study: Study, db: Database, options: RunOptions, on_event: Callable[[Event], None]) -> None:
        self.study, self.db, self.options, self.on_event = study, db, options, on_event
        self.began = time.perf_counter()
        self.writer = Writer(db)
        self.trained = None if study.evaluated is None else Trained(db, study)
        self.wanted = {(job.trial_number, job.task, job.seed) for job in possible_jobs(study)}
        if self.trained is not None:
            self.wanted = self.trained.jobs
        options.check(study, stored=queries.holds(db, study.name))
        self.corpora = corpora(study)
        if self.corpora and self._lacks():
            check_corpora(study, db, self.corpora)
        self.skipped = self.attempts = 0
        self.unsought = False
        self.held: str | None = None
        self.spent: BudgetSpent | None = None
        self.signals = Signals()

    def _lacks(self) -> bool:
        """Whether there may be something to train."""
        if self.options.trial is not None or self.options.retry_failed or not queries.holds(self.db, self.study.name):
            return True
        jobs = queries.jobs(self.db, queries.study(self.db, self.study.name).id)
        ended = {(job.trial_number, job.task, job.seed) for job in jobs if job.state in FINAL_STATES}
        return self.study.search is not None or bool(self.wanted - ended)

    def go(self) -> RunSummary:
        """Take the lease, run, give it back."""
        study, writer = self.study, self.writer
        self.study_id = put_study(study, writer, takeover=self.options.takeover)
        with self.signals:
            origin = provenance(study.plugins) | {
                "seeds": list(study.seeds),
                **({KEY: dict(self.corpora)} if self.corpora else {}),
            }
            run = writer.begin_run(self.study_id, provenance=origin, takeover=self.options.takeover)
            interrupted = False
            try:
                with Heartbeat(writer, run.id) as heartbeat:
                    self._work(run.id, heartbeat)
            except BudgetSpent as end:
                self.spent = end
            except (_Stop, KeyboardInterrupt):
                interrupted = True
            except BaseException:
                with contextlib.suppress(MirasError):  # it would hide why the run failed; a dead lease is taken over
                    writer.end_run(run.id, "failed")
                raise
            writer.end_run(run.id, "interrupted" if interrupted else "done")
            summary = self._summary(interrupted=interrupted)
            self.on_event(StudyFinished(summary))
        if interrupted:
            raise Interrupted(summary)
        return summary

    def _work(self, run_id: int, heartbeat: Heartbeat) -> None:
        study, writer, options = self.study, self.writer, self.options
        for lost in writer.reconcile(self.study_id):
            why = f"run {lost.run_id} ended without closing it"
            self.on_event(AttemptLost(lost.cell, lost.task, lost.seed, lost.attempt, "lost", why))
        writer.put_trials(self.study_id, new_trials(study))
        if study.search is None:
            jobs = new_jobs(study)
            writer.put_jobs(self.study_id, jobs if self.trained is None else self.trained.known(jobs))
        writer.reset_jobs(self.study_id, [job.id for job in self._jobs() if self._again(job)])
        if self.trained is not None:
            writer.reset_jobs(self.study_id, self.trained.outdated(self.study_id, self._jobs()))
            self.trained.settle(writer, run_id, self._jobs())
        stored = self._jobs()
        self.skipped = sum(job.state in FINAL_STATES for job in stored)

        budget = Budget(self.db, self.study_id, study.resources, self.began)

        def check() -> None:
            heartbeat.check()
            budget.check()
            if self.signals.received is not None:
                raise _Stop

        if study.search is not None:
            self._seek(run_id, stored, check)
            return
        with contextlib.closing(Record(self.db, self.study_id, study, self.wanted)) as record:
            record.reconcile()
            hooks = Hooks(event=self.on_event, begun=record.begin, ended=record.end, check=check)
            if self.trained is not None:
                note = functools.partial(self.trained.note, self.writer)
                hooks = dataclasses.replace(hooks, trained=self.trained.checkpoint, attempted=note)
            todo = self._todo(stored)
            if options.trial is not None or not study.grows:
                self._train(run_id, todo, hooks)
                return
            tuning = None if study.tuning is None else self._tuned(record, todo)
            source = _once(todo) if tuning is None else tuning.more
            topped_up = None
            if study.top_up is not None:
                from miras_search.engine.topping import ToppedUpJobs  # scipy takes a while

                topped_up = ToppedUpJobs(self.writer, self.study_id, study, record, source, self.on_event)
                source = topped_up.more
            more = self._limited(source)
            self._train(run_id, more(), dataclasses.replace(hooks, more=more))
            if tuning is not None:
                self.held = tuning.held()
            if topped_up is not None and self.held is None:
                self.unsought, self.held = topped_up.due(), topped_up.held()

    def _tuned(self, record: Record, todo: Sequence[JobRow]) -> TunedJobs:
        return TunedJobs(self.db, self.writer, self.study_id, self.study, record, todo)

    def _seek(self, run_id: int, jobs: Sequence[JobRow], check: Callable[[], None]) -> None:
        """Search on: train what waits, ask for what is missing, confirm."""
        options = self.options
        ask = options.trial is None
        with contextlib.closing(SearchRun(self.writer, self.study_id, self.study)) as search:
            search.resume(jobs if ask else self._todo(jobs), ask=ask)
            self.study = search.study
            more = self._limited(search.more)
            first = more()
            hooks = Hooks(
                event=self.on_event,
                begun=lambda number: None,
                ended=lambda job, state, value: search.ended(job, state),
                check=check,
                more=more,
                points=search.points if search.watches else None,
            )
            try:
                self._train(run_id, first, hooks)
            finally:
                self.unsought = not search.through

    def _limited(self, source: Callable[[], list[JobRow]]) -> Callable[[], list[JobRow]]:
        """The source, until it has given as many jobs as this run may train."""
        given, most = 0, self.options.max_jobs

        def more() -> list[JobRow]:
            nonlocal given
            found = source() if given != most else []
            found = found if most is None else found[: most - given]
            given += len(found)
            return found

        return more

    def _train(self, run_id: int, todo: Sequence[JobRow], hooks: Hooks) -> None:
        study, options = self.study, self.options
        # what top-ups have added is stored; of an evaluation there may be less than all seeds of all cells
        planned = max(study.jobs, self.skipped + len(todo)) if self.trained is None else len(self.wanted)
        if study.search is not None:
            size = study.search.trials * len(study.seeds) + (study.search.top + 1) * len(study.search.confirm_seeds)
            planned = max(self.skipped + len(todo), size * len(study.tasks))
        grows = study.search is not None or (study.grows and options.trial is None)
        left = planned - self.skipped if grows and todo else len(todo)
        left = left if options.max_jobs is None else min(left, options.max_jobs)
        started = StudyStarted(study.name, len(study.cells), planned, self.skipped, left, "none", 0)
        if not todo:
            self.on_event(started)
            return
        hooks.check()
        executor = self._executor(left)
        self.signals.install()  # Ray has put its own in place
        loop = JobLoop(
            study,
            self.writer,
            run_id,
            executor,
            Checkpoints(self.db, self.writer, options.checkpoints),
            hooks,
            entry=options.entry or (TRAINING if self.trained is None else EVALUATION),
            metric=(study.metric, METRICS[study.metric].split),
            corpora=self.corpora,
        )
        try:
            self.on_event(dataclasses.replace(started, executor=executor.name, slots=executor.slots))
            loop.run(todo)
        except BaseException as error:
            if isinstance(error, _Stop | BudgetSpent):
                self.on_event(Stopping(options.grace))
                with contextlib.suppress(MirasError, KeyboardInterrupt):  # what could not be saved is trained again
                    loop.stop(options.grace)
            self.signals.hold()
            if not isinstance(error, LeaseLost):  # the rows are another run's business now
                with contextlib.suppress(MirasError):  # the next run's reconciling does the same
                    loop.abandon()
            raise
        finally:
            self.signals.hold()
            self.attempts = loop.attempts
            executor.close()

    def _executor(self, jobs: int) -> Executor:
        """The executor for so many jobs. Ray takes seconds to start: an interrupt does not wait for that."""
        options, resources = self.options, self.study.resources
        try:
            return make_executor(
                options.executor,
                jobs=jobs,
                cpus=resources.cpus,
                gpus=resources.gpus,
                workers=options.workers,
                address=options.address,
                starting=self.signals.prompt,
            )
        except BaseException as error:
            if self.signals.received is not None:  # whatever the interrupted library has made of it
                raise _Stop from error
            raise

    def _jobs(self) -> list[JobRow]:
        """The study file's jobs: the database may hold more seeds than the file asks for now."""
        rows = queries.jobs(self.db, self.study_id)
        if self.study.search is not None:
            return rows
        return [job for job in rows if (job.trial_number, job.task, job.seed) in self.wanted]

    def _again(self, job: JobRow) -> bool:
        """Whether the options ask to train a job that has ended once more."""
        if self.options.trial is not None:
            return job.trial_number == self.options.trial and job.state in FINAL_STATES
        return self.options.retry_failed and job.state == "failed"

    def _todo(self, jobs: Sequence[JobRow]) -> list[JobRow]:
        trial = self.options.trial
        waiting = [job for job in jobs if job.state == "waiting" and (trial is None or job.trial_number == trial)]
        if self.trained is not None:
            waiting = [job for job in waiting if self.trained.ready(job)]
        return waiting[: self.options.max_jobs]

    def _summary(self, *, interrupted: bool) -> RunSummary:
        jobs = self._jobs()
        count = Counter(job.state for job in jobs)
        ended = sum(count[state] for state in FINAL_STATES)
        return RunSummary(
            study=self.study.name,
            complete=count["complete"],
            diverged=count["diverged"],
            failed=count["failed"],
            pruned=count["pruned"],
            waiting=max(self.study.jobs if self.study.tuning else 0, len(jobs)) - ended,
            skipped=self.skipped,
            attempts=self.attempts,
            seconds=time.perf_counter() - self.began,
            interrupted=interrupted,
            unsought=self.unsought,
            held=self.held,
            spent=None if self.spent is None else self.spent.text,
            more=None if self.spent is None else self.spent.more,
        )
