"""Mamba 2: one number a token both writes and fades."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register

register(
    Preset(
        "mamba2",
        "S_t = a_t S_{t-1} + d_t k_t^T v_t,  d_t = softplus(x_t w + b),  a_t = exp(-d_t exp(A_h))",
        "Dao and Gu 2024 (2405.21060): keys (B) and queries (C) shared by all heads, a skip D v_t and the norm after "
        "the gate there; own keys a head, no skip and the gate after the norm here",
        {
            "memory": {"matrix": {"start": "zero"}},
            "bias": "dot",
            "retention": {"l2": {"keep": {"source": "data", "squash": "mamba", "tie": "step", "value": 0.97}}},
            "algorithm": "gd",
            "step": {"source": "data", "squash": "softplus", "value": 0.1},
        },
        {"conv": 4, "activation": "silu", "qk_norm": "none", "output_norm": "rms", "output_gate": True},
    )
)
