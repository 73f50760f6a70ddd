"""RetNet: every head fades the past at a rate of its own, which is never trained."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register

register(
    Preset(
        "retnet",
        "S_t = g_h S_{t-1} + k_t^T v_t,  g_h = 1 - 2^(-5-h), h = 0..H-1;  q, k turned by position",
        "Sun et al. 2023 (2307.08621), Eq. 6-8; the group norm is an RMS norm a head; values twice as wide: "
        "model.value_dim",
        {
            "memory": {"matrix": {"start": "zero"}},
            "bias": "dot",
            "retention": {"l2": {"keep": {"source": "fixed", "value": 0.96875, "ladder": "halving"}}},
            "algorithm": "gd",
            "step": 1.0,
        },
        {"conv": 0, "activation": "none", "qk_norm": "none", "rope": True, "output_norm": "rms", "output_gate": True},
    )
)
