"""Kimi Delta Attention: Gated DeltaNet with a decay for every key channel."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register

register(
    Preset(
        "kda",
        "S_t = (I - b_t k_t^T k_t) diag(a_t) S_{t-1} + b_t k_t^T v_t,  a_t = exp(-exp(A) softplus(x_t W_1 W_2 + c))",
        "Kimi Linear 2025 (2510.26692): one A a head, a bottleneck as wide as a head and a sigmoid gate there; one A "
        "a key channel, a bottleneck of 16 and a SiLU gate here",
        {
            "memory": {"matrix": {"start": "zero"}},
            "bias": "l2",
            "retention": {
                "l2": {"keep": {"source": "data", "scope": "key", "squash": "mamba", "rank": 16, "value": 0.97}}
            },
            "algorithm": "gd",
            "step": "data",
            "execution": {"gradient_at": "decayed"},
        },
        {"conv": 4, "activation": "silu", "qk_norm": "l2", "output_norm": "rms", "output_gate": True},
    )
)
