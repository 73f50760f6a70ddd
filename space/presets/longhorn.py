"""Longhorn: the delta rule with the step that minimises each token's loss, never too long."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register

register(
    Preset(
        "longhorn",
        "S_t = S_{t-1} - k_t^T ((k_t S_{t-1} - v_t) * d_t),  d_t = b_t / (1 + b_t |k_t|^2),  b_t = sigmoid(x_t W + c) "
        "by value channel",
        "Liu et al. 2024 (2407.14207): trained there with diag(k^2) in the place of k^T k, one head of all channels "
        "and a skip; its exact solution, heads and no skip here",
        {
            "memory": {"matrix": {"start": "zero"}},
            "bias": "l2",
            "retention": "none",
            "algorithm": "implicit",
            "step": {"source": "data", "scope": "value", "value": 0.5},
        },
        {"conv": 4, "activation": "silu", "qk_norm": "none", "output_norm": "none", "output_gate": True},
    )
)
