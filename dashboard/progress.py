"""How far a study is: what runs, what came last, what went wrong, and how long the rest will take, with its basis."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from miras_search.analysis.snapshot import Snapshot, steps_of
from miras_search.store.lease import is_live
from miras_search.store.types import AttemptRow, JobRow, RunRow


@dataclass(frozen=True, slots=True)
class Current:
    """A training under way."""

    cell: str
    task: str
    seed: int
    step: int | None
    steps: int | None
    elapsed: timedelta

    @property
    def share(self) -> float:
        """Of its steps, between 0 and 1; 0 while unknown."""
        return min(self.step / self.steps, 1.0) if self.step and self.steps else 0.0


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that has ended."""

    attempt: AttemptRow
    job: JobRow
    value: float | None  # the study's metric on its own split


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """An estimate in seconds, or None where there is nothing to estimate from; `basis` says how it was made."""

    seconds: float | None
    basis: str


def current(snapshot: Snapshot, now: datetime) -> list[Current]:
    """The trainings under way, the oldest first."""
    steps = {trial.cell: steps_of(trial) for trial in snapshot.trials}
    return [
        Current(
            row.cell, row.task, row.seed, row.last_step, steps.get(row.cell), max(now - row.started_at, timedelta())
        )
        for row in snapshot.running
    ]


def newest(snapshot: Snapshot, metric: tuple[str, str], limit: int = 8) -> list[Ended]:
    """The trainings that ended last with a result, the newest first."""
    ended = [row for row in snapshot.attempts if row.ended_at is not None and row.state in ("complete", "diverged")]
    return _with_jobs(snapshot, ended, metric)[:limit]


def troubles(snapshot: Snapshot) -> list[Ended]:
    """Attempts that failed, ran out of memory or time, or were lost, the newest first."""
    bad = ("failed", "oom", "timeout", "lost")
    return _with_jobs(snapshot, [row for row in snapshot.attempts if row.state in bad], None)


def _with_jobs(snapshot: Snapshot, attempts: Sequence[AttemptRow], metric: tuple[str, str] | None) -> list[Ended]:
    jobs = {job.id: job for job in snapshot.jobs}
    values = {(row.number, row.task, row.seed): row.values for row in snapshot.results}
    ordered = sorted(attempts, key=lambda row: (row.ended_at or row.started_at, row.id), reverse=True)
    found = []
    for attempt in ordered:
        job = jobs[attempt.job_id]
        known = values.get((job.trial_number, job.task, job.seed), {})
        found.append(Ended(attempt, job, known.get(metric) if metric else None))
    return found


def live_run(runs: Sequence[RunRow], now: datetime) -> RunRow | None:
    """The run that is at work now, as the store sees it; None where nobody is."""
    for run in reversed(runs):
        if run.status == "running" and is_live(run, now):
            return run
    return None


def silent_run(runs: Sequence[RunRow], now: datetime) -> RunRow | None:
    """A run that says it is at work and is gone, or has not been heard of for a minute."""
    if live_run(runs, now) is None and runs and runs[-1].status == "running":
        return runs[-1]
    return None


def command(runs: Sequence[RunRow]) -> list[str] | None:
    """The words of the newest `run` of the whole study; None where it was never started from the command line."""
    for run in reversed(runs):
        argv = run.provenance.get("argv")
        words = [str(word) for word in argv] if isinstance(argv, list) else []
        if words[1:2] == ["run"] and not any(word.startswith(("--trial", "--retry")) for word in words):
            return ["miras-search", *words[1:]]
    return None


def time_left(snapshot: Snapshot, now: datetime) -> TimeLeft:
    """The work left, by the median wall time of what is done, shared by the trainings that run now."""
    left = [job for job in snapshot.jobs if job.state in ("waiting", "running")]
    if not left:
        return TimeLeft(0.0, "every job has ended")
    seconds: dict[tuple[str, str], list[float]] = {}
    for cell, task, took in snapshot.took:
        seconds.setdefault((cell, task), []).append(took)
    done = sum(map(len, seconds.values()))
    if done == 0:
        return TimeLeft(None, "no training has completed yet to estimate from")
    typical = statistics.median(value for values in seconds.values() for value in values)
    progress = {(row.cell, row.task, row.seed): row.share for row in current(snapshot, now)}
    work = 0.0
    for job in left:
        own = seconds.get((job.cell, job.task))
        share = progress.get((job.cell, job.task, job.seed), 0.0)
        work += (statistics.median(own) if own else typical) * (1.0 - share)
    at_once = len(snapshot.running) if live_run(snapshot.runs, now) else 0
    trainings = f"{len(left)} training{'' if len(left) == 1 else 's'} left at {duration(typical)} each"
    source = f"median of the {done} that completed"
    if at_once == 0:
        return TimeLeft(work, f"{trainings} ({source}), one at a time; nothing runs now")
    return TimeLeft(work / at_once, f"{trainings} ({source}), {at_once} at a time")


def duration(seconds: float) -> str:
    """A span in the two largest units: `42 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two(whole, 60, "min", 1, "s")
    return _two(whole, 3600, "h", 60, "min") if whole < 86400 else _two(whole, 86400, "d", 3600, "h")


def _two(seconds: int, large: int, large_name: str, small: int, small_name: str) -> str:
    rest = seconds % large // small
    return f"{seconds // large} {large_name}" + (f" {rest} {small_name}" if rest else "")


def ago(moment: datetime, now: datetime) -> str:
    """How long ago: `just now`, `3 min ago`, `2 d ago`."""
    seconds = (now - moment).total_seconds()
    if seconds < 5:
        return "just now"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds)} s ago"


def stamp(moment: datetime) -> str:
    """A moment as text, in UTC, to the minute."""
    return moment.strftime("%Y-%m-%d %H:%M UTC")
