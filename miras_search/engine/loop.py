"""The job loop: fill the executor's slots, turn what comes back into rows and events, try lost jobs again.

What is tried again: an attempt whose worker died (three attempts in all) or fell silent (two), and one that ran out of
memory (once more, alone and with a whole GPU). A job that raises has failed: trainings are deterministic, so it would
raise again. A single job goes on from its newest snapshot. Attempts in a pack are not counted: whatever ends one, its
jobs are tried again in smaller ones (`packs`).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from miras_search.engine.checkpoints import Checkpoints
from miras_search.engine.events import AttemptLost, Event, JobFinished, JobStarted, Progress, label
from miras_search.engine.jobs import checkpoint_name, snapshot_name, task_of
from miras_search.engine.messages import Executor, Failed, Finished, Message, Points, Row, Saved, Started, Stopped
from miras_search.engine.packs import Packs, pack_size
from miras_search.engine.task import versions
from miras_search.errors import EnvironmentProblem, cause
from miras_search.store.types import PACKED, AttemptState, Final, JobRow, JobState
from miras_search.store.writer import Writer
from miras_search.study.study import Study

MAX_ATTEMPTS = {"lost": 3, "timeout": 2, "oom": 2}  # of a job in one run, by how they ended
POLL_SECONDS = 0.5  # as often as a training reports; the end of a task is waited for, not looked for

Told = list[Callable[[], None]]
"""What is to be done once the rows are committed: the hooks write to the same database on connections of their own."""


@dataclass(eq=False, slots=True)
class _Group:
    """A task under way: a single job, or a pack."""

    ticket: int
    size: int
    alone: bool
    heard: float = math.inf  # when its worker last said something, by the monotonic clock


@dataclass(slots=True)
class _Running:
    """An attempt under way."""

    job: JobRow
    attempt: int
    group: _Group
    attempt_id: int | None = None  # once a worker has taken it up


def _untrained(job: JobRow) -> None:
    return None


def _unheard(job: JobRow, attempt_id: int) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the loop calls beside the store."""

    event: Callable[[Event], None]
    begun: Callable[[int], None]
    """With the trial's number, when one of its jobs starts."""
    ended: Callable[[JobRow, JobState, float | None], None]
    """With a job, its final state and its value of the study's metric, after the rows are committed."""
    check: Callable[[], None]
    """Called between steps; raises to stop the loop."""
    more: Callable[[], Sequence[JobRow]] = tuple
    """Further jobs, asked for whenever there is room and none is left."""
    points: Callable[[JobRow, Sequence[Row]], bool] | None = None
    """With a job and points of its curve, once they are stored; whether to end it as pruned. None never does."""
    trained: Callable[[JobRow], bytes | None] = _untrained
    """The checkpoint that a job evaluates; None where it is trained."""
    attempted: Callable[[JobRow, int], None] = _unheard
    """With a job and the id of its attempt, in the transaction that stores it."""


class JobLoop:
    """Trains the given jobs on an executor. Every row is written by the thread that calls `run`."""

    def __init__(
        self,
        study: Study,
        writer: Writer,
        run_id: int,
        executor: Executor,
        checkpoints: Checkpoints,
        hooks: Hooks,
        *,
        entry: str,
        metric: tuple[str, str],
        corpora: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._study, self._writer, self._run_id = study, writer, run_id
        self._executor, self._checkpoints, self._hooks = executor, checkpoints, hooks
        self._entry, self._metric, self._corpora = entry, metric, corpora
        self._silence = study.resources.silence
        self._queue = Packs(study, pack_size(study.resources))
        self._ticket = 1  # the next one
        self._asks = True  # whether there may be more jobs than those that were given
        self._running: dict[int, _Running] = {}
        self._attempts: Counter[int] = Counter()  # by job, stored ones included
        self._bad: Counter[tuple[int, str]] = Counter()  # (job, lost | oom) in this run
        self._alone: set[int] = set()  # jobs that ran out of memory beside others
        self.attempts = 0

    def run(self, jobs: Sequence[JobRow]) -> None:
        """Train the jobs, in order, and what `more` adds, until each is final.

        Raises whatever `check` or the store raises.
        """
        self._put(jobs)
        while True:
            self._hooks.check()
            self._fill()
            if not self._queue and not self._running:
                return
            self._take(self._executor.poll(POLL_SECONDS))
            self._end_silent()

    def _put(self, jobs: Sequence[JobRow]) -> None:
        self._queue.put(jobs)
        self._attempts.update({job.id: job.attempts for job in jobs})

    def stop(self, grace: float) -> None:
        """Let the trainings save themselves and end, for at most `grace` seconds. Starts nothing new."""
        self._executor.stop()
        until = time.monotonic() + grace
        while any(one.attempt_id is not None for one in self._running.values()) and time.monotonic() < until:
            self._take(self._executor.poll(POLL_SECONDS))

    def abandon(self) -> None:
        """Close the books on what is running: the attempts are lost, their jobs wait for the next run."""
        for running in self._running.values():
            if running.attempt_id is not None:
                self._close(running.attempt_id, "lost", "Interrupted", "the run was stopped")
        self._running.clear()

    def _fill(self) -> None:
        """Start tasks while there is room; a job that must be alone waits for the others, and they for it."""
        while len(groups := self._groups()) < self._executor.slots:
            if not self._queue and self._asks:
                self._put(self._hooks.more())
            if not self._queue:
                self._asks = False  # until a job ends: what leads on is read from the database
                return
            alone = self._queue.first.id in self._alone
            if groups and (alone or any(group.alone for group in groups)):
                return
            jobs = self._queue.take()
            group = _Group(self._ticket, len(jobs), alone)
            for ticket, job in enumerate(jobs, group.ticket):
                self._attempts[job.id] += 1
                self._running[ticket] = _Running(job, self._attempts[job.id], group)
            self._ticket += len(jobs)
            kept = self._checkpoints.kept(snapshot_name(self._study.name, jobs[0])) if len(jobs) == 1 else None
            trained = self._hooks.trained(jobs[0])
            task = task_of(self._study, jobs, self._entry, resume=kept, trained=trained, corpora=self._corpora)
            self._executor.submit(group.ticket, task, whole_device=alone)

    def _groups(self) -> set[_Group]:
        """The tasks under way."""
        return {running.group for running in self._running.values()}

    def _take(self, messages: Sequence[Message]) -> None:
        """Write what the messages say in one transaction, then tell of it. A pruner decides between two of them."""
        for message in messages:
            if isinstance(message, Started):
                _check_versions(message)
        now = time.monotonic()
        for block in [[message] for message in messages] if self._hooks.points is not None else [messages]:
            told: Told = []
            begun: list[_Running] = []
            try:
                with self._writer.together():
                    for message in block:
                        running = self._running.get(message.ticket)
                        if running is not None:
                            if running.attempt_id is None:
                                begun.append(running)
                            running.group.heard = now
                            told += self._written(running, message)
            except BaseException:
                for running in begun:  # its row is not there
                    running.attempt_id = None
                raise
            for tell in told:
                tell()

    def _written(self, running: _Running, message: Message) -> Told:
        """Write what a message says; returns what is to be done once that is committed."""
        match message:
            case Started():
                return self._start(running, message.host, message.pid, message.device)
            case Points():
                return self._points(running, message)
            case Saved():
                return [partial(self._checkpoints.keep, snapshot_name(self._study.name, running.job), message.data)]
            case Stopped():
                del self._running[message.ticket]
                self._stopped(running, message)
                return []
            case Finished():
                del self._running[message.ticket]
                return self._finished(running, message)
            case Failed():
                del self._running[message.ticket]
                return self._failed(running, message)

    def _end_silent(self) -> None:
        """Kill what hangs: a training reports twice a second, or after each step that takes longer."""
        now = time.monotonic()
        for group in self._groups():
            if now - group.heard > self._silence:
                left = sorted(ticket for ticket, running in self._running.items() if running.group is group)
                self._executor.kill(left[0])
                why = f"the worker said nothing for {self._silence:g} s and was killed"
                self._take([Failed(ticket, "timeout", "Silent", why) for ticket in left])

    def _start(self, running: _Running, host: str, pid: int, device: str) -> Told:
        job = running.job
        if device and running.group.size > 1:
            device = f"{device}{PACKED}{running.group.size}"
        running.attempt_id = self._writer.start_attempt(job.id, self._run_id, host=host, pid=pid, device=device)
        self._hooks.attempted(job, running.attempt_id)

        def told() -> None:
            self.attempts += 1
            self._hooks.begun(job.trial_number)
            self._hooks.event(JobStarted(job.cell, job.task, job.seed, running.attempt))

        return [told]

    def _points(self, running: _Running, message: Points) -> Told:
        if not message.rows:  # a sign of life
            return []
        assert running.attempt_id is not None, "points before the start of an attempt"
        self._writer.add_points(running.attempt_id, message.rows)
        return [partial(self._progress, running, message)]

    def _progress(self, running: _Running, message: Points) -> None:
        """Tell of points, and end the job where the pruner says so."""
        job = running.job
        newest = {(split, name): value for _, name, split, value in message.rows}
        metrics = {label(split, name): value for (split, name), value in newest.items()}
        if self._hooks.points is not None and self._hooks.points(job, message.rows):
            assert running.attempt_id is not None, "points before the start of an attempt"
            del self._running[message.ticket]
            self._executor.kill(message.ticket)
            self._close(running.attempt_id, "pruned", "Pruned", "the pruner has seen enough", final=True)
            self._hooks.ended(job, "pruned", None)
            self._tell_end(job, "pruned", metrics, None, None)
            return
        steps = self._study.trials[job.trial_number].train.steps
        self._hooks.event(Progress(job.cell, job.task, job.seed, max(row[0] for row in message.rows), steps, metrics))

    def _finished(self, running: _Running, message: Finished) -> Told:
        attempt_id, outcome, job = running.attempt_id, message.outcome, running.job
        assert attempt_id is not None, "an end before the start of an attempt"
        self._writer.finish_attempt(
            attempt_id,
            state=outcome.state,
            finals=[Final(final.name, final.split, final.value) for final in outcome.finals],
            last_step=outcome.last_step,
            wall_seconds=outcome.wall_seconds,
            peak_memory_bytes=outcome.peak_memory_bytes,
            error_type="Diverged" if outcome.state == "diverged" else None,
            error_text=outcome.note or None,
            final_for_job=True,
        )

        def told() -> None:
            values = {(final.name, final.split): final.value for final in outcome.finals}
            self._hooks.ended(job, outcome.state, values.get(self._metric))
            metrics = {label(split, name): value for (name, split), value in values.items()}
            self._tell_end(job, outcome.state, metrics, outcome.wall_seconds, outcome.note or None)
            if message.checkpoint is not None:
                name = checkpoint_name(self._study.name, job, running.attempt)
                self._checkpoints.save(attempt_id, name, message.checkpoint, outcome.last_step)

        return [told]

    def _stopped(self, running: _Running, message: Stopped) -> None:
        assert running.attempt_id is not None, "an end before the start of an attempt"
        self._close(running.attempt_id, "lost", "Interrupted", f"the run was stopped: {message.text}")

    def _failed(self, running: _Running, message: Failed) -> Told:
        job = running.job
        # a worker may die before it could say that it had begun
        told = self._start(running, "", 0, "") if running.attempt_id is None else []
        assert running.attempt_id is not None, "it has begun by now"
        self._queue.split(job, running.group.size, message.state)
        again = packed = running.group.size > 1
        if not packed:
            self._bad[job.id, message.state] += 1
            again = self._bad[job.id, message.state] < MAX_ATTEMPTS.get(message.state, 1)
        self._close(running.attempt_id, message.state, message.error_type, message.error_text, final=not again)
        why = _brief(message)
        if again:
            if message.state == "oom" and not packed:
                self._alone.add(job.id)
            self._queue.put_back(job)
            lost = AttemptLost(job.cell, job.task, job.seed, running.attempt, message.state, why)
            return [*told, partial(self._hooks.event, lost)]
        ended = partial(self._hooks.ended, job, "failed", None)
        return [*told, ended, partial(self._tell_end, job, "failed", {}, None, why)]

    def _close(self, attempt_id: int, state: AttemptState, kind: str, text: str, *, final: bool = False) -> None:
        """End an attempt that found nothing."""
        self._writer.finish_attempt(
            attempt_id,
            state=state,
            finals=(),
            last_step=None,
            wall_seconds=None,
            peak_memory_bytes=None,
            error_type=kind,
            error_text=text,
            final_for_job=final,
        )

    def _tell_end(
        self, job: JobRow, state: JobState, metrics: Mapping[str, float], seconds: float | None, error: str | None
    ) -> None:
        self._asks = True
        self._checkpoints.drop(snapshot_name(self._study.name, job))
        self._hooks.event(JobFinished(job.cell, job.task, job.seed, state, metrics, seconds, error))


def _check_versions(started: Started) -> None:
    """Raises EnvironmentProblem for a worker that would compute other numbers than the others."""
    here = versions()
    if dict(started.versions) != here:
        names = sorted(here.keys() | started.versions.keys())
        odd = [name for name in names if here.get(name) != started.versions.get(name)]
        told = ", ".join(
            f"{name} {started.versions.get(name, 'missing')} (here {here.get(name, 'missing')})" for name in odd
        )
        raise EnvironmentProblem(f"{started.host}: a worker has {told}: install the same versions on every machine")


def _brief(message: Failed) -> str:
    """What an error line shows: a traceback ends with its cause, a worker's obituary begins with it."""
    if message.state in ("lost", "timeout"):
        return message.error_text.strip().partition("\n")[0] or message.error_type
    return cause(message.error_text, message.error_type)
