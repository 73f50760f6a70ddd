"""Biases as pairs of jit functions: the signal u = d loss / d prediction, and the vjp of that signal.

An option names the module that holds its pair, and the settings compiled into both, in its `triton`. A kernel takes the
pair as compile-time constants, so one kernel body serves every bias that has one. The vjp is needed because the outer
loss is differentiated through the inner gradient.

    signal(prediction, value, threshold, channel, SETTINGS) -> u
    vjp(prediction, value, threshold, d_signal, channel, SETTINGS) -> d_prediction, d_value, d_threshold

Everything is float32 [C, V] (C tokens, V value channels, both padded) but `threshold`, which is [C, 1] where it is one
a head, or unused, and `channel` [1, V], False on padding. `d_threshold` is [C, V]; the kernel sums it over channels
where the threshold is one a head. SETTINGS is the tuple that the option gives.

Padding holds prediction = value = threshold = 0. A pair must be finite there, and such channels must not change the
others; what it returns on them is masked away.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple

from miras_search.space.jit import Jit


class BiasPair(NamedTuple):
    """Jit functions of one bias, and what they are compiled with."""

    signal: Callable[..., object]
    vjp: Callable[..., object]
    settings: tuple[float | int | str, ...]


def pair_of(where: Jit) -> BiasPair:
    """The pair that a bias names. Raises ImportError or AttributeError where it is not there."""
    module = importlib.import_module(where.module)
    return BiasPair(module.signal, module.vjp, where.settings)
