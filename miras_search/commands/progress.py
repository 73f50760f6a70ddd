"""How a run tells how far it is: a live table on a terminal, plain lines in a log file, JSON lines for a program.

All of them take the engine's events; none decides anything.
"""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from miras_search.commands.common import duration, many, note, number
from miras_search.engine import events
from miras_search.engine.events import Event
from miras_search.errors import cause
from miras_search.metrics import METRICS

NAME_WIDTH = 40  # longer names of cells are cut in the live table; the lines of a log have them in full

CAME_TO = {
    "oom": "ran out of memory",
    "timeout": "fell silent and was killed",
    "lost": "was lost",
    "failed": "failed in a pack",
}


class Reporter(AbstractContextManager["Reporter"], Protocol):
    """Takes the events of one run, within its context."""

    def __call__(self, event: Event) -> None:
        """Show the event."""


class Silent:
    """Nothing at all, for `--quiet`."""

    def __call__(self, event: Event) -> None:
        """Show nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class JsonLines(Silent):
    """One JSON line an event, on stdout. The summary is left to the caller, who has the table too."""

    def __call__(self, event: Event) -> None:
        """Print the event at once, so that a reader of the pipe sees it when it happens."""
        if not isinstance(event, events.StudyFinished):
            sys.stdout.write(json.dumps(event.to_plain(), ensure_ascii=False, allow_nan=False) + "\n")
            sys.stdout.flush()


class Lines(Silent):
    """One line a finished job, on stderr."""

    def __init__(self, metric: str, verb: str = "train") -> None:
        self.metric, self.verb = metric, verb
        self.done = self.jobs = 0

    def __call__(self, event: Event) -> None:
        """Print what has been decided: a start, a finished job, a lost attempt."""
        match event:
            case events.StudyStarted():
                self.done, self.jobs = event.done, event.jobs
                note(started(event, self.verb))
            case events.ToppedUp():
                self.jobs += event.jobs
                note(topped_up(event))
            case events.JobFinished():
                self.done += 1
                note(f"[{self.done}/{self.jobs}] {finished(event, self.metric)}")
            case events.AttemptLost():
                note(lost(event))
            case events.Stopping():
                note(stopping(event))
            case _:
                pass


class Live:
    """A bar for the study and one for each running job, with the time left, on stderr."""

    def __init__(self, metric: str, console: Console | None = None, verb: str = "train") -> None:
        self.metric, self.verb = metric, verb
        self.console = console or Console(stderr=True)
        self.progress = Progress(
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(max_width=NAME_WIDTH, no_wrap=True, overflow="ellipsis"),
            ),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}", markup=False),
            TextColumn("{task.fields[said]}", markup=False),
            TimeRemainingColumn(),
            console=self.console,
            refresh_per_second=4,
            speed_estimate_period=3600.0,  # jobs are slow: the default window would forget the one before
            transient=True,
        )
        self.study: TaskID | None = None
        self.bars: dict[tuple[str, str, int], TaskID] = {}
        self.bad = {"diverged": 0, "failed": 0}

    def __call__(self, event: Event) -> None:
        """Move the bars; print a line above them for what a reader must not miss."""
        match event:
            case events.StudyStarted():
                self._print(started(event, self.verb))
                self.study = self.progress.add_task(
                    event.study, total=event.jobs, completed=event.done, unit="jobs", said=""
                )
            case events.ToppedUp():
                self._print(topped_up(event))
                if self.study is not None:
                    total = self.progress.tasks[self.progress.task_ids.index(self.study)].total or 0
                    self.progress.update(self.study, total=total + event.jobs)
            case events.JobStarted():
                self._bar(event.cell, event.task, event.seed)
            case events.Progress():
                bar = self._bar(event.cell, event.task, event.seed)
                self.progress.update(bar, completed=event.step, total=event.steps, said=self._said(event))
            case events.JobFinished():
                self._remove(event.cell, event.task, event.seed)
                if event.state in self.bad:
                    self.bad[event.state] += 1
                    self._print(finished(event, self.metric))
                if self.study is not None:
                    said = ", ".join(f"{count} {state}" for state, count in self.bad.items() if count)
                    self.progress.update(self.study, advance=1, said=said)
            case events.AttemptLost():
                self._remove(event.cell, event.task, event.seed)
                self._print(lost(event))
            case events.Stopping():
                self._print(stopping(event))
            case _:
                pass

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def _bar(self, cell: str, task: str, seed: int) -> TaskID:
        key = (cell, task, seed)
        if key not in self.bars:
            self.bars[key] = self.progress.add_task(f"  {cell}, {task}, seed {seed}", total=1, unit="steps", said="")
        return self.bars[key]

    def _remove(self, cell: str, task: str, seed: int) -> None:
        bar = self.bars.pop((cell, task, seed), None)
        if bar is not None:
            self.progress.remove_task(bar)

    def _said(self, event: events.Progress) -> str:
        for split in ("validation", "train"):
            for name in (self.metric, "loss"):
                value = event.metrics.get(events.label(split, name))
                if value is not None:
                    return f"{split} {name} {number(value)}"
        return ""

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def topped_up(event: events.ToppedUp) -> str:
    """`bias: 3 cells are not decided: 4 seeds more, 16 jobs`."""
    undecided = f"{many(event.undecided, 'cell')} {'is' if event.undecided == 1 else 'are'} not decided"
    return f"{event.study}: {undecided}: {many(event.seeds, 'seed')} more, {many(event.jobs, 'job')}"


def started(event: events.StudyStarted, verb: str) -> str:
    """`bias: 7 cells, 70 jobs, 10 done, 60 to train; local, 2 at once`."""
    size = f"{event.study}: {many(event.cells, 'cell')}, {many(event.jobs, 'job')}, {event.done} done"
    return f"{size}, {event.todo} to {verb}; {event.executor}, {event.slots} at once" if event.todo else size


def finished(event: events.JobFinished, metric: str) -> str:
    """`l2, noisy_recall, seed 3: complete, test accuracy 0.912, 4.1 s`."""
    parts = [event.state]
    split = METRICS[metric].split
    value = event.metrics.get(events.label(split, metric))
    if value is not None:
        parts.append(f"{split} {metric} {number(value)}".strip())
    if event.wall_seconds is not None:
        parts.append(duration(event.wall_seconds))
    text = f"{event.cell}, {event.task}, seed {event.seed}: {', '.join(parts)}"
    return f"{text}: {cause(event.error)}" if event.error else text


def lost(event: events.AttemptLost) -> str:
    """The attempt that came to nothing, and that the job will be tried again."""
    where = f"{event.cell}, {event.task}, seed {event.seed}"
    return f"{where}: attempt {event.attempt} {CAME_TO[event.state]} and is made again: {cause(event.error)}"


def stopping(event: events.Stopping) -> str:
    """What happens after a signal, or at the end of a budget."""
    return f"stopping: trainings save where they are, for {duration(event.grace)} at most"
