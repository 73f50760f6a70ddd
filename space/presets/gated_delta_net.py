"""Gated DeltaNet: the delta rule on a memory that decays first."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register

GATED_DELTA_NET = register(
    Preset(
        "gated_delta_net",
        "S_t = a_t (I - b_t k_t^T k_t) S_{t-1} + b_t k_t^T v_t",
        "Yang, Kautz and Hatamizadeh 2024 (2412.06464): the gradient is taken after the decay; S_0 = 0 there, learned "
        "here",
        {
            "memory": "matrix",
            "bias": "l2",
            "retention": {"l2": {"keep": {"source": "data", "squash": "mamba", "value": 0.97}}},
            "algorithm": "gd",
            "step": "data",
            "execution": {"gradient_at": "decayed"},
        },
    )
)
