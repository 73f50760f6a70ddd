"""The link of a retention gate as jit functions, found where the option's `triton` trait says.

A kernel takes them as compile-time constants, so one kernel body serves every gate that has them. A dual gate's module
holds the link and its vector-Jacobian product, one of a primal gate the step on the weights in place:

    link(z, cell, parameter, SETTINGS) -> w
    link_vjp(z, w, cell, parameter, d_w, SETTINGS) -> (d_z, d_parameter)

    shrunk(z, step, cell, parameter, SETTINGS) -> w                           z = keep * weights + change
    shrunk_vjp(z, step, cell, parameter, d_w, SETTINGS) -> (d_z, d_step, d_parameter)

All tiles are float32 [K, V] padded to powers of two; `cell` is False on padding, where z is 0, and what a function
gives there is dropped. `parameter` is the gate's one learned number of a head as the outer loop holds it (0 where there
is none), `step` the write's step over the tile, `SETTINGS` the tuple that the trait gives. `d_parameter` is a number.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple

from miras_search.space.jit import Jit


class Link(NamedTuple):
    """A pair of jit functions with what they are compiled with; hashable, as part of a kernel's rule."""

    forward: Callable[..., object]
    backward: Callable[..., object]
    settings: tuple[float | int | str, ...]


def link_of(where: Jit, *, primal: bool) -> Link:
    """The functions that a gate names, on the weights in place where it is `primal`.

    Raises ImportError or AttributeError where they are not there.
    """
    module = importlib.import_module(where.module)
    names = ("shrunk", "shrunk_vjp") if primal else ("link", "link_vjp")
    return Link(getattr(module, names[0]), getattr(module, names[1]), where.settings)
