"""Which combinations of levels become cells: what `design` makes of `vary`.

one_at_a_time   the base with one level put in
leave_one_out   the base with one part off; `vary` names each part's one off level, and the base has it on
add_one_in      the mirror: the base with every part off, and one part put back on
factorial       every combination of levels
pairwise        few combinations in which every two levels meet that the rules let meet
fractional      an orthogonal fraction of the factorial
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

from miras_search.space.fields import Path, Plain, Problem, SpecError
from miras_search.study import covering, levels
from miras_search.study.fraction import DoesNotFit, fraction
from miras_search.study.levels import Held, Variant
from miras_search.study.whole import PRESET

Design = Literal["one_at_a_time", "leave_one_out", "add_one_in", "factorial", "pairwise", "fractional"]
CROSSED = ("factorial", "pairwise", "fractional")
"""Designs whose cells have a level of every axis."""
PARTS = ("leave_one_out", "add_one_in")
MAX_CELLS = 2000
Choices: TypeAlias = Mapping[str, list[object]]
"""Varied path -> its levels."""
Combination: TypeAlias = Mapping[str, tuple[int, object]]
"""Path -> position in its list, and the level there."""
Ordered: TypeAlias = Mapping[str, Sequence[tuple[int, object]]]
"""Path -> its levels with their positions in the file, the base's first."""
CLEAR = {
    3: "main effects are clear of each other and not of interactions of two axes",
    4: "main effects are clear of interactions of two axes, which are not clear of each other",
    5: "main effects and interactions of two axes are clear of each other",
}
"""What a fraction can tell, by its resolution."""


@dataclasses.dataclass(frozen=True, slots=True)
class Coverage:
    """That a pairwise design has what it promises: counted from its cells."""

    pairs: int
    """Pairs of levels of two axes."""
    covered: int
    """Of these the ones that some cell has."""
    refused: tuple[tuple[str, str], ...]
    """The others: the pair as text, and why no cell can have it."""
    of: int
    """Cells of the factorial."""

    def to_plain(self) -> dict[str, Plain]:
        """As plain data, for `--json`."""
        refused: list[Plain] = [{"pair": pair, "reason": reason} for pair, reason in self.refused]
        return {"pairs": self.pairs, "covered": self.covered, "refused": refused, "factorial": self.of}

    def __str__(self) -> str:
        count = f"{self.covered} of {self.pairs} pairs of levels covered, {len(self.refused)} refused"
        return f"{count}; the factorial has {self.of:,} combinations"


@dataclasses.dataclass(frozen=True, slots=True)
class Orthogonal:
    """What an orthogonal fraction can tell apart: counted from its cells."""

    runs: int
    of: int
    """Cells of the factorial."""
    resolution: int

    def to_plain(self) -> dict[str, Plain]:
        """As plain data, for `--json`."""
        return {"runs": self.runs, "factorial": self.of, "resolution": self.resolution}

    def __str__(self) -> str:
        roman = {3: "III", 4: "IV", 5: "V"}[self.resolution]
        return f"{self.runs} of {self.of:,} combinations, resolution {roman}: {CLEAR[self.resolution]}"


Array: TypeAlias = Coverage | Orthogonal


@dataclasses.dataclass(frozen=True, slots=True)
class Chosen:
    """The combinations, and what is proved of them."""

    combinations: Sequence[Combination]
    array: Array | None = None


def check_parts(choices: Choices, base: Variant, held: Held) -> list[Problem]:
    """What keeps `vary` from naming the off level of each part of the base."""
    found: list[Problem] = []
    for path, given in choices.items():
        if path == PRESET:
            found.append(Problem(("vary", path), "a whole design is not a part that can be off: name the parts"))
        elif len(given) > 1:
            what = f"{len(given)} levels: name the one that means off; what the base has means on"
            found.append(Problem(("vary", path), what))
        else:
            where: Path = ("vary", path, 0)
            try:
                off = levels.applied(base, path, given[0], held, where)
            except SpecError as error:
                found.extend(error.problems)
                continue
            if off.key == base.key:
                text = levels.text_at(base, path)
                found.append(Problem(where, f"the base has {path} at {text} already: nothing to leave out or add"))
    return found


def all_off(choices: Choices, base: Variant, held: Held) -> Variant:
    """The base with every part off: what `add_one_in` begins from. Raises `SpecError`."""
    for path in levels.application_order(choices):
        base = levels.applied(base, path, choices[path][0], held, ("vary", path, 0))
    return base


def chosen(
    design: Design,
    choices: Choices,
    *,
    resolution: int,
    at_base: Callable[[str, object], bool],
    refusal: Callable[[Combination], str | None],
) -> Chosen:
    """The cells beside the base, as combinations of levels.

    `at_base` tells whether a level is what the base has, `refusal` why a combination cannot be. For `add_one_in` a
    combination has the parts that stay off. Raises `SpecError` where the design does not fit the levels.
    """
    listed = {path: list(enumerate(given)) for path, given in choices.items()}
    if not choices:
        return Chosen([])
    if design in ("one_at_a_time", "leave_one_out"):
        return Chosen([{path: level} for path, given in listed.items() for level in given])
    if design == "add_one_in":
        return Chosen([{path: given[0] for path, given in listed.items() if path != on} for on in listed])
    if design == "factorial":
        return Chosen([dict(zip(listed, row, strict=True)) for row in itertools.product(*listed.values())])
    # the base's level first: the base is the first row of the array wherever all its levels are listed
    ordered, has_base = {}, True
    for path, given in listed.items():
        bases = [level for level in given if at_base(path, level[1])]
        ordered[path] = bases + [level for level in given if level not in bases]
        has_base = has_base and bool(bases)
    return _fractional(ordered, resolution) if design == "fractional" else _pairwise(ordered, has_base, refusal)


def _combination(ordered: Ordered, row: Sequence[int]) -> Combination:
    return {path: given[at] for (path, given), at in zip(ordered.items(), row, strict=True)}


def _fractional(ordered: Ordered, resolution: int) -> Chosen:
    sizes = [len(given) for given in ordered.values()]
    try:
        found = fraction(sizes, resolution)
    except DoesNotFit as error:
        raise SpecError.at(("design",), str(error)) from error
    array = Orthogonal(len(found.rows), found.of, found.resolution)
    return Chosen([_combination(ordered, row) for row in found.rows], array)


def _pairwise(ordered: Ordered, has_base: bool, refusal: Callable[[Combination], str | None]) -> Chosen:
    sizes, paths = [len(given) for given in ordered.values()], list(ordered)
    if len(sizes) < 2:
        raise SpecError.at(("design",), "one axis has no pairs; use one_at_a_time, or vary more axes")
    first = (0,) * len(sizes) if has_base else None
    found = covering.cover(sizes, lambda row: refusal(_combination(ordered, row)), first)
    problems = []
    for axis, path in enumerate(paths):
        for at in range(sizes[axis]):
            if not any(row[axis] == at for row in found.rows):
                pair = next(pair for pair in found.refused if (axis, at) in (pair[:2], pair[2:]))
                what = f"no combination has this level: {found.refused[pair]}"
                problems.append(Problem(("vary", path, ordered[path][at][0]), what))
    if problems:
        raise SpecError(problems)

    def text(pair: covering.Pair) -> str:
        found = ((paths[axis], ordered[paths[axis]][at][1]) for axis, at in (pair[:2], pair[2:]))
        return " with ".join(f"{path}={_text(level)}" for path, level in found)

    refused = tuple((text(pair), reason) for pair, reason in found.refused.items())
    array = Coverage(found.pairs, found.covered, refused, math.prod(sizes))
    return Chosen([_combination(ordered, row) for row in found.rows], array)


def _text(level: object) -> str:
    """A level as it is written, in one line."""
    if isinstance(level, Mapping):
        return "{" + ", ".join(f"{key}: {_text(value)}" for key, value in level.items()) + "}"
    if isinstance(level, list):
        return f"[{', '.join(map(_text, level))}]"
    return str(level)
