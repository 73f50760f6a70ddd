"""What is wrong with a study, at its place in the file: one line a problem, ready to be printed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from miras_search.errors import MirasError


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written: a file with line and column from 1, or an override (line and column 0)."""

    path: str
    line: int = 0
    col: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.col}" if self.line else self.path


@dataclass(frozen=True, slots=True)
class Located:
    """One problem: the file, the place in it, the dotted path of keys, and the value with its cure."""

    path: str
    line: int
    col: int
    where: str
    what: str

    def __str__(self) -> str:
        place = str(Place(self.path, self.line, self.col))
        return ": ".join(part for part in (place, self.where, self.what) if part)


class StudyError(MirasError):
    """A study that cannot be run; carries every problem found, in the order of the file."""

    exit_code = 2

    def __init__(self, problems: Iterable[Located]) -> None:
        unique = dict.fromkeys(problems)
        self.problems = tuple(sorted(unique, key=lambda problem: (problem.line, problem.col)))
        super().__init__("\n".join(map(str, self.problems)))

    @classmethod
    def at(cls, place: Place, what: str, where: str = "") -> StudyError:
        """An error with a single problem."""
        return cls([Located(place.path, place.line, place.col, where, what)])
