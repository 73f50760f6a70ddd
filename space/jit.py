"""Where the Triton form of an option's maths is: named here, imported by the kernels alone."""

from __future__ import annotations

from typing import NamedTuple


class Jit(NamedTuple):
    """A module with a pair of jit functions, and the numbers and words that they are compiled with."""

    module: str
    """Of the package, or a user's own (`__name__`). `kernels/triton/signals.py` says which functions a bias's module
    has, `links.py` beside it those of a retention gate's.
    """
    settings: tuple[float | int | str, ...] = ()
