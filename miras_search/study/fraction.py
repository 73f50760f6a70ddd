"""An orthogonal fraction of a factorial: far fewer cells in which effects of axes are still told apart.

The rows are all x in GF(p)^m, and an axis with p^e levels reads e coordinates of x in directions of its own. Any two
axes whose directions are independent meet in all their combinations equally often, any three likewise, and so on: with
every R - 1 axes independent the fraction has resolution R. Main effects are clear of each other from III on, of
interactions of two from IV on, and those of each other from V on.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Vector: TypeAlias = tuple[int, ...]
NODES = 20_000  # choices of directions that are looked at before more rows are taken
HIGHEST = 5


@dataclass(frozen=True, slots=True)
class Fraction:
    """Rows of positions of levels, one an axis; the first row has every axis at position 0."""

    rows: tuple[tuple[int, ...], ...]
    of: int
    """Cells of the factorial."""
    resolution: int
    """Counted from the rows; 5 stands for five or more."""


class DoesNotFit(ValueError):
    """No such fraction; the text says why."""


def fraction(sizes: Sequence[int], resolution: int = 3) -> Fraction:
    """The smallest fraction of this resolution at least, for axes with `sizes` levels. Raises `DoesNotFit`."""
    if len(sizes) < 3:
        raise DoesNotFit(f"{len(sizes)} axes leave nothing to save; use factorial")
    prime, powers = _powers(sizes)
    whole = math.prod(sizes)
    needed = max(sum(sorted(powers)[-(resolution - 1) :]), 1)
    for m in itertools.count(needed):
        if prime**m >= whole:
            raise DoesNotFit(
                f"no fraction of resolution {resolution} is smaller than the {whole} cells of the factorial; use "
                f"factorial, or more axes"
            )
        for aim in range(HIGHEST, resolution - 1, -1):  # as many rows may give more than was asked for
            spans = _directions(prime, m, powers, aim)
            if spans is not None:
                rows = tuple(_row(x, spans, prime) for x in itertools.product(range(prime), repeat=m))
                return Fraction(rows, whole, 1 + _strength(rows, sizes))
    raise AssertionError("the loop ends by its bound")


def _powers(sizes: Sequence[int]) -> tuple[int, list[int]]:
    """The prime of which every number of levels is a power, and the powers."""
    told = ", ".join(map(str, sizes))
    smallest = {size: next((d for d in range(2, size + 1) if size % d == 0), size) for size in sizes}
    primes = set(smallest.values())
    if min(sizes) < 2 or len(primes) > 1 or any(p ** round(math.log(n, p)) != n for n, p in smallest.items()):
        raise DoesNotFit(
            f"axes of {told} levels: an orthogonal fraction needs 2, 4 or 8 levels on every axis, or 3 or 9, or 5, or "
            f"another power of one prime; use pairwise, or other levels"
        )
    prime = primes.pop()
    return prime, [round(math.log(size, prime)) for size in sizes]


def _directions(prime: int, m: int, powers: Sequence[int], resolution: int) -> list[tuple[Vector, ...]] | None:
    """For each axis its independent directions in GF(p)^m, such that every `resolution` - 1 axes are independent."""
    budget = NODES
    order = sorted(range(len(powers)), key=lambda axis: -powers[axis])  # large ones find no room later
    found: dict[int, tuple[Vector, ...]] = {}

    def place(at: int, sums: tuple[frozenset[Vector], ...]) -> bool:
        """`sums[t]` has every sum of t vectors of different axes so far; a new axis may meet none of them."""
        nonlocal budget
        if at == len(order):
            return True
        axis = order[at]
        taken = frozenset().union(*sums[1:])
        for basis, span in _subspaces(prime, m, powers[axis]):
            budget -= 1
            if budget < 0:
                return False
            if taken.isdisjoint(span):
                grown = [sums[0]]
                for before, now in itertools.pairwise(sums):
                    grown.append(now | {_plus(one, other, prime) for one in before for other in span})
                found[axis] = basis
                if place(at + 1, tuple(grown)):
                    return True
        return False

    zero = (0,) * m
    start = (frozenset([zero]), *[frozenset[Vector]()] * (resolution - 2))
    return [found[axis] for axis in range(len(powers))] if place(0, start) else None


def _subspaces(prime: int, m: int, dimension: int) -> Iterator[tuple[tuple[Vector, ...], frozenset[Vector]]]:
    """Subspaces as bases, each with its vectors other than zero; single coordinates come first."""
    lines = [v for v in itertools.product(range(prime), repeat=m) if next((x for x in v if x), 0) == 1]
    lines.sort(key=lambda v: (sum(map(bool, v)), [-x for x in v]))
    for basis in itertools.combinations(lines, dimension):
        span = set()
        for factors in itertools.product(range(prime), repeat=dimension):
            span.add(tuple(sum(f * v[i] for f, v in zip(factors, basis, strict=True)) % prime for i in range(m)))
        if len(span) == prime**dimension:
            yield basis, frozenset(span - {(0,) * m})


def _plus(one: Vector, other: Vector, prime: int) -> Vector:
    return tuple((a + b) % prime for a, b in zip(one, other, strict=True))


def _row(x: Vector, spans: Sequence[tuple[Vector, ...]], prime: int) -> tuple[int, ...]:
    """The level of every axis at x: its coordinates as the digits of a number."""
    levels = []
    for basis in spans:
        level = 0
        for vector in basis:
            level = level * prime + sum(a * b for a, b in zip(vector, x, strict=True)) % prime
        levels.append(level)
    return tuple(levels)


def _strength(rows: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> int:
    """The most axes, up to `HIGHEST` - 1, of which any so many meet in all their combinations equally often."""
    for count in range(1, min(HIGHEST, len(sizes) + 1)):
        for axes in itertools.combinations(range(len(sizes)), count):
            met = Counter(tuple(row[axis] for axis in axes) for row in rows)
            if len(met) != math.prod(sizes[axis] for axis in axes) or len(set(met.values())) > 1:
                return count - 1
    return min(HIGHEST - 1, len(sizes))
