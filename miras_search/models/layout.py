"""Which layers of a model are memories and which are attention: a hybrid mixes the two.

The layer under study is the memory. A hybrid's attention layers are the preset `sliding_window`, the same in every
cell, so what a study varies, a negative control or a matched step among it, acts on the memory layers alone. Plain
data: a study is checked without torch.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from miras_search.models.config import ModelConfig
from miras_search.space.design import DesignPoint
from miras_search.space.presets import PRESETS, preset

ATTENTION = "sliding_window"


class Slot(NamedTuple):
    """What one block's mixer is built of."""

    config: ModelConfig
    design: DesignPoint
    is_memory: bool
    """Whether it is the layer under study."""


def layout(config: ModelConfig, design: DesignPoint) -> tuple[Slot, ...]:
    """The mixer of every block, in order: every `attention_every`-th is attention, so that a memory comes first."""
    memory, every = Slot(config, design, True), config.attention_every
    if not every:
        return (memory,) * config.layers
    attention = Slot(_around_attention(config), _windowed(config.attention_window), False)
    return tuple(memory if i % every else attention for i in range(1, config.layers + 1))


def _around_attention(config: ModelConfig) -> ModelConfig:
    """The model's shapes with what the preset has around its attention."""
    own: dict[str, Any] = dict(PRESETS[ATTENTION].model)
    plain = {"conv": 0, "activation": "none", "feature_map": "none", "normaliser": "none", **own}
    return dataclasses.replace(config, **plain)


def _windowed(window: int) -> DesignPoint:
    return preset(ATTENTION).changed("memory.window", window)
