"""The results of one task gathered by cell: which seed gave which value, what failed, what it cost.

The store hands over one row a job. A table speaks of cells, and of seeds that two cells share, so this is where rows
become cells. Nothing is dropped: a seed has a value, or is counted as diverged, failed or still open.
"""

from __future__ import annotations

import difflib
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from miras_search.errors import MirasError
from miras_search.metrics import METRICS, Metric
from miras_search.store.types import FINAL_STATES, ResultRow


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell on one task: the metric by seed, the jobs without one, the mean costs."""

    name: str
    role: str
    number: int
    changes: Mapping[str, str]
    values: Mapping[int, float]  # seed -> finite value of a completed job
    of: int  # jobs the study plans for this cell on this task
    failed: int
    diverged: frozenset[int]  # seeds
    silent: int = 0  # completed jobs that did not record the metric
    costs: Mapping[str, float] = field(default_factory=dict)
    ended: frozenset[int] = frozenset()  # seeds whose job has come to a result: complete or diverged
    lost: frozenset[int] = frozenset()  # seeds whose job failed, which is none

    @property
    def is_complete(self) -> bool:
        """Whether every planned job gave a value."""
        return len(self.values) == self.of

    @property
    def mean(self) -> float | None:
        """Over the seeds that gave a value."""
        return statistics.fmean(self.values.values()) if self.values else None


def metric_named(name: str) -> Metric:
    """The registered metric; an unknown name raises MirasError that lists the registered ones."""
    if not isinstance(name, str) or name not in METRICS:
        raise MirasError(f"metric: {name!r} is not registered; {_choices(name, METRICS)}")
    return METRICS[name]


def task_names(results: Iterable[ResultRow]) -> list[str]:
    """The tasks in the order in which the results name them."""
    return list(dict.fromkeys(row.task for row in results))


def gather(results: Iterable[ResultRow], *, task: str, metric: str, split: str) -> list[Cell]:
    """The cells of one task in the order of their trial numbers.

    A completed job whose value is not finite counts as diverged. Raises MirasError for an unknown task, and for a
    metric that no completed job has recorded; a task with nothing completed gives cells without values.
    """
    rows = list(results)
    here = [row for row in rows if row.task == task]
    if not here:
        raise MirasError(f"task: the study has no results for {task!r}; {_choices(task, task_names(rows))}")
    completed = [row for row in here if row.state == "complete"]
    if completed and not any((metric, split) in row.values for row in completed):
        recorded = dict.fromkeys(_label(*key) for row in completed for key in row.values)
        raise MirasError(
            f"metric: no completed job of task {task!r} recorded {_label(metric, split)!r}; "
            f"{_choices(_label(metric, split), recorded)}"
        )
    by_number: dict[int, list[ResultRow]] = {}
    for row in here:
        by_number.setdefault(row.number, []).append(row)
    names = Counter(jobs[0].cell for jobs in by_number.values())
    return [
        # a name identifies a row of the table, so cells that share one are told apart by their trial number
        _cell(jobs, metric, split, name=jobs[0].cell if names[jobs[0].cell] == 1 else f"{jobs[0].cell} #{number}")
        for number, jobs in sorted(by_number.items())
    ]


def has_diverged(row: ResultRow, metric: str, split: str) -> bool:
    """Whether the training diverged, or completed with a value that is not finite."""
    is_value = math.isfinite(row.values.get((metric, split), 0.0))
    return row.state == "diverged" or (row.state == "complete" and not is_value)


def _cell(rows: Sequence[ResultRow], metric: str, split: str, *, name: str) -> Cell:
    values: dict[int, float] = {}
    silent = 0
    for row in rows:
        if row.state != "complete":
            continue
        value = row.values.get((metric, split))
        if value is None:
            silent += 1
        elif math.isfinite(value):
            values[row.seed] = value
    first = rows[0]
    return Cell(
        name=name,
        role=first.role,
        number=first.number,
        changes=dict(first.changes),
        values=dict(sorted(values.items())),
        of=len(rows),
        failed=sum(row.state == "failed" for row in rows),
        diverged=frozenset(row.seed for row in rows if has_diverged(row, metric, split)),
        silent=silent,
        costs=_costs(rows),
        ended=frozenset(row.seed for row in rows if row.state in FINAL_STATES and row.state != "failed"),
        lost=frozenset(row.seed for row in rows if row.state == "failed"),
    )


def _costs(rows: Sequence[ResultRow]) -> dict[str, float]:
    """Cost metrics over the seeds: the largest peak of memory, the mean of the rest; completed jobs if there are any.

    A job that diverged early has a true parameter count and state size, but little of a speed.
    """
    completed = [row for row in rows if row.state == "complete"] or rows
    found: dict[str, list[float]] = {}
    for row in completed:
        for (name, split), value in row.values.items():
            if split == "" and math.isfinite(value):
                found.setdefault(name, []).append(value)
    return {
        name: max(numbers) if name == "peak_memory_bytes" else math.fsum(numbers) / len(numbers)
        for name, numbers in found.items()
    }


def _label(metric: str, split: str) -> str:
    return f"{metric} ({split})" if split else metric


def _choices(wrong: str, names: Iterable[str]) -> str:
    known = list(names)
    near = difflib.get_close_matches(str(wrong), known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"there are: {', '.join(known) or 'none'}{hint}"


def cell_named(cells: Sequence[Cell], name: str) -> Cell:
    """The cell of that display name; an unknown one raises MirasError that lists the cells."""
    for cell in cells:
        if cell.name == name:
            return cell
    raise MirasError(f"against: no cell is named {name!r}; {_choices(name, (cell.name for cell in cells))}")
