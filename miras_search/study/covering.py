"""A pairwise covering array: few cells in which every two levels of different axes meet, where the rules let them.

It is for screening: a combination that fails or shines is met, at a fraction of the factorial's cost. It is not
balanced, so effects of axes read from it are not clean; an orthogonal fraction (`fractional`) is for those. Plain
indices here: what a level is, and what refuses a combination, is the caller's.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Row: TypeAlias = tuple[int, ...]
"""For each axis the position of its level."""
Pair: TypeAlias = tuple[int, int, int, int]
"""An axis and its level, a later axis and its level."""
Refusal: TypeAlias = Callable[[Row], str | None]
"""Why a combination cannot be, or None where it can."""
TRIES = 300  # combinations that are looked at before a pair is given up


@dataclass(frozen=True, slots=True)
class Covering:
    """Rows in which all pairs meet that can, and the pairs that cannot with the reason."""

    rows: tuple[Row, ...]
    refused: Mapping[Pair, str]
    pairs: int
    """All pairs of levels, counted from the axes."""
    covered: int
    """Those that the rows have, counted from the rows."""


def cover(sizes: Sequence[int], refusal: Refusal, first: Row | None = None) -> Covering:
    """Cover the pairs of axes with `sizes` levels each; `first` is a row that is there anyway.

    Deterministic. A pair is refused when no combination with it is valid, of all or of the first `TRIES`; the reason is
    the one that most of those met.
    """
    reasons: dict[Row, str | None] = {}

    def why(row: Row) -> str | None:
        if row not in reasons:
            reasons[row] = refusal(row)
        return reasons[row]

    every = list(_all_pairs(sizes))
    open_ = dict.fromkeys(every)
    rows: list[Row] = []
    refused: dict[Pair, str] = {}
    if first is not None:
        rows.append(first)
        _close(open_, first)
    while open_:
        pair = next(iter(open_))
        # the first completion settles whether there is one; the others only look for a better one
        candidates = [_completed(pair, sizes, open_, refused, why, turn) for turn in range(len(sizes))]
        found = [one for one in candidates if not isinstance(one, str)]
        if found:
            best = max(found, key=lambda row: sum(one in open_ for one in pairs_of(row)))
            rows.append(best)
            _close(open_, best)
        else:
            refused[pair] = str(candidates[0])
            del open_[pair]
    met = {pair for row in rows for pair in pairs_of(row)}
    return Covering(tuple(rows), refused, len(every), len(met.intersection(every)))


def pairs_of(row: Row) -> Iterator[Pair]:
    """Every two levels that a row has together."""
    for (i, one), (j, other) in itertools.combinations(enumerate(row), 2):
        yield i, one, j, other


def _all_pairs(sizes: Sequence[int]) -> Iterator[Pair]:
    for (i, ones), (j, others) in itertools.combinations(enumerate(sizes), 2):
        yield from ((i, one, j, other) for one in range(ones) for other in range(others))


def _close(open_: dict[Pair, None], row: Row) -> None:
    for pair in pairs_of(row):
        open_.pop(pair, None)


def _completed(
    pair: Pair,
    sizes: Sequence[int],
    open_: Mapping[Pair, None],
    refused: Mapping[Pair, str],
    why: Refusal,
    turn: int,
) -> Row | str:
    """The first valid row with a pair, levels that close many open pairs tried first; else the reason that most met.

    `turn` is the axis that is chosen first of those that the pair leaves free.
    """
    i, one, j, other = pair
    free = [axis for axis in (*range(turn, len(sizes)), *range(turn)) if axis not in (i, j)]
    told: Counter[str] = Counter()
    tried = 0

    def between(axis: int, level: int, having: Mapping[int, int]) -> Iterator[Pair]:
        for before, taken in having.items():
            yield (before, taken, axis, level) if before < axis else (axis, level, before, taken)

    def rows(having: dict[int, int], left: Sequence[int]) -> Iterator[Row]:
        if not left:
            yield tuple(having[axis] for axis in range(len(sizes)))
            return
        axis, *rest = left
        gains = {}
        for level in range(sizes[axis]):
            met = list(between(axis, level, having))
            if not any(found in refused for found in met):
                gains[level] = sum(found in open_ for found in met)
        for level in sorted(gains, key=lambda level: -gains[level]):
            yield from rows({**having, axis: level}, rest)

    for row in rows({i: one, j: other}, free):
        reason = why(row)
        if reason is None:
            return row
        told[reason] += 1
        tried += 1
        if tried == TRIES:
            break
    if not told:
        return "each of its combinations has another refused pair"
    reason = told.most_common(1)[0][0]
    return reason if tried < TRIES else f"{reason} (the {TRIES} combinations tried are all refused)"
