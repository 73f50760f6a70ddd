"""A tuned study as its tables show it: the cells with their reported seeds, and beside each what its tuning chose.

The tuning's own trainings chose a setting, so they are in no mean and no test. What is said of them: which value a cell
took, whether it lies at an end of the list (a better one may lie beyond), how much the value matters, whether all of
the tuning's seeds prefer it, and whether it decides on which side of the reference the cell lies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from miras_search.analysis.table import AblationTable, Row
from miras_search.store.tuned import Scheme, Tried, Tuned, tuned
from miras_search.store.types import CurveRow, ResultRow, StudyRow

Numbered = Mapping[str, object]
FEWEST_FOR_EDGE = 3  # of two values both are ends


@dataclass(frozen=True, slots=True)
class Tuning:
    """The tuning of a stored study."""

    scheme: Scheme
    cells: Sequence[Numbered]
    """As the study's configuration has them, by number."""
    found: Mapping[tuple[int, str], Tuned]
    """By cell and task."""

    @classmethod
    def of(cls, study: StudyRow, results: Sequence[ResultRow]) -> Tuning | None:
        """That of a stored study, from the results of all its trials; None where nothing is tuned."""
        scheme = Scheme.of(study.config, study.metric)
        if scheme is None:
            return None
        return cls(scheme, cast(Sequence[Numbered], study.config["cells"]), tuned(results, scheme))

    def reported(self, results: Sequence[ResultRow]) -> list[ResultRow]:
        """The jobs on reported seeds, as jobs of the study's cells, by the cell's number and the task."""
        found = []
        for row in results:
            if row.seed not in self.scheme.seeds:
                cell = self.cells[self.scheme.cell(row.number)]
                name, number = cast(str, cell["name"]), cast(int, cell["number"])
                found.append(replace(row, cell=name, number=number, changes=cast(dict[str, str], cell["changes"])))
        tasks = list(dict.fromkeys(row.task for row in results))  # trials have them in the study's order
        return sorted(found, key=lambda row: (row.number, tasks.index(row.task)))

    def cell_of(self, job: ResultRow) -> str | None:
        """The study's cell whose reported job it is, by name; None for a job that tunes."""
        if job.seed in self.scheme.seeds:
            return None
        return str(self.cells[self.scheme.cell(job.number)]["name"])

    def reported_curves(self, curves: Iterable[CurveRow], results: Iterable[ResultRow]) -> list[CurveRow]:
        """The curves of the jobs on reported seeds, as those of the study's cells."""
        cells = {row.cell: str(self.cells[self.scheme.cell(row.number)]["name"]) for row in results}
        return [replace(row, cell=cells[row.cell]) for row in curves if row.seed not in self.scheme.seeds]

    def shown(self, table: AblationTable) -> AblationTable:
        """The table with what was chosen for each row, and what a reader must know of it."""
        numbers = {str(cell["name"]): cast(int, cell["number"]) for cell in self.cells}
        reference = self.found[numbers[table.base], table.task]
        rows, notes, torn = [], [], []
        for row in table.rows:
            one = self.found.get((numbers[row.cell], table.task)) if row.cell in numbers else None
            if one is None or one.chosen is None:
                rows.append(row)
                continue
            rows.append(self._row(row, one, reference))
            notes += self._notes(rows[-1], one, reference, table)
            if one.best not in (None, one.chosen):
                notes.append(self._overtaken(row.cell, one))
            if rivals := self._rivals(one):
                torn.append(f"{row.cell} ({', '.join(rivals)})")
        if torn and len(self.scheme.seeds) > 1:
            seeds, paths = len(self.scheme.seeds), " and ".join(self.scheme.values)
            notes.append(
                f"Not all {seeds} seeds of the tuning prefer what was chosen for {', '.join(torn)} to the {paths} in "
                "brackets: rounding may turn such a choice; raise tune.seeds."
            )
        return replace(table, rows=tuple(rows), notes=(*table.notes, *notes), caption=f"{table.caption} {self.caption}")

    @property
    def caption(self) -> str:
        """The sentence that a table's caption says of it."""
        paths = " and ".join(self.scheme.values)
        have = "is" if len(self.scheme.values) == 1 else "are"
        size, seeds = self.scheme.size, len(self.scheme.seeds)
        own = "1 seed that is" if seeds == 1 else f"{seeds} seeds that are"
        what = f"{paths} {have} chosen for each row, the best of {size} by {self.scheme.metric} on validation"
        return f"{what} over {own} not reported."

    def _row(self, row: Row, one: Tuned, reference: Tuned) -> Row:
        assert one.chosen is not None
        places, values = self.scheme.places(one.chosen), self.scheme.values
        flips = one is not reference and self._flips(one, reference)
        verdict = row.verdict
        if flips and verdict is not None:
            verdict = f"{verdict}; its sign depends on {' and '.join(values)}"
        return replace(
            row,
            tuned={path: values[path][place] for path, place in places.items()},
            at_edge={path: end for path, place in places.items() if (end := _end(place, values[path])) is not None},
            sensitivity={path: self._spread(one, path) for path in values},
            tried={self._setting(tried): tried.mean for tried in one.tried},
            sign_depends=None if one is reference else flips,
            verdict=verdict,
        )

    def _overtaken(self, cell: str, one: Tuned) -> str:
        """What to say where a training of the tuning was made again after its choice."""
        chosen, best = (self._setting(tried) for n in (one.chosen, one.best) for tried in one.tried if tried.trial == n)
        paths = " and ".join(self.scheme.values)
        return (
            f"{cell}: its seeds were trained with {paths} = {chosen} before its tuning had all results; by those that "
            f"it has now {best} is best. Train it under another name (--as)."
        )

    def _setting(self, tried: Tried) -> str:
        """`0.01`, or where several are tuned `0.01, 4`."""
        places = self.scheme.places(tried.trial)
        return ", ".join(self.scheme.values[path][place] for path, place in places.items())

    def _rivals(self, one: Tuned) -> list[str]:
        """The settings that some seed of the tuning does not put behind the chosen one."""
        chosen = next((tried for tried in one.tried if tried.trial == one.chosen), None)
        if chosen is None:
            return []
        others = (tried for tried in one.tried if tried is not chosen)
        return [self._setting(other) for other in others if _side(chosen, other, self.scheme) < 1]

    def _spread(self, one: Tuned, path: str) -> float | None:
        """Largest less smallest over the path's values, each with the best of the other settings."""
        best: dict[int, float] = {}
        pick = max if self.scheme.direction == "maximize" else min
        for tried in one.tried:
            if (mean := tried.mean) is not None:
                place = self.scheme.places(tried.trial)[path]
                best[place] = pick(mean, best.get(place, mean))
        return max(best.values()) - min(best.values()) if len(best) > 1 else None

    def _flips(self, one: Tuned, reference: Tuned) -> bool:
        """Whether the cell is above the reference in one setting and below it in another, in every seed each time."""
        sides = {_side(*pair, self.scheme) for pair in zip(one.tried, reference.tried, strict=True)}
        return {-1, 1} <= sides

    def _notes(self, row: Row, one: Tuned, reference: Tuned, table: AblationTable) -> list[str]:
        notes = [
            f"{row.cell}: {path} = {(row.tuned or {})[path]} is the {end} of the values tried, so a better one may lie "
            f"beyond; extend tune.{path}."
            for path, end in (row.at_edge or {}).items()
        ]
        if row.sign_depends:
            sides: dict[int, list[str]] = {1: [], -1: []}
            for mine, other in zip(one.tried, reference.tried, strict=True):
                if side := _side(mine, other, self.scheme):
                    sides[side].append(self._setting(mine))
            paths = " and ".join(self.scheme.values)
            notes.append(
                f"{row.cell}: better than {table.base} at {paths} = {' or '.join(sides[1])}, worse at "
                f"{' or '.join(sides[-1])}, in every seed of the tuning: the sign depends on the setting."
            )
        return notes


def _end(place: int, values: Sequence[str]) -> str | None:
    """Whether a value is the first or the last of enough numbers; words have no ends."""
    if len(values) < FEWEST_FOR_EDGE or place not in (0, len(values) - 1) or not all(map(_is_number, values)):
        return None
    return "first" if place == 0 else "last"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _side(mine: Tried, other: Tried, scheme: Scheme) -> int:
    """1 where the cell is better in every seed that both ended, -1 where it is worse; a bad training is worse."""
    if mine.bad or other.bad:
        return (other.bad > mine.bad) - (mine.bad > other.bad)
    sign = 1 if scheme.direction == "maximize" else -1
    differences = [sign * (mine.values[seed] - other.values[seed]) for seed in mine.values if seed in other.values]
    if differences and min(differences) > 0:
        return 1
    return -1 if differences and max(differences) < 0 else 0
