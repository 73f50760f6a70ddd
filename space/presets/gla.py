"""Gated linear attention: every key channel fades at a rate that the token sets."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register

register(
    Preset(
        "gla",
        "S_t = diag(a_t) S_{t-1} + k_t^T v_t,  a_t = sigmoid(x_t W_1 W_2 + b)^(1/16), W_1 of 16 columns",
        "Yang et al. 2023 (2312.06635), section 4; keys half as wide: model.key_dim",
        {
            "memory": {"matrix": {"start": "zero"}},
            "bias": "dot",
            "retention": {
                "l2": {
                    "keep": {
                        "source": "data",
                        "scope": "key",
                        "squash": "sigmoid",
                        "temper": 16.0,
                        "rank": 16,
                        "value": 0.9576032806985737,
                    }
                }
            },
            "algorithm": "gd",
            "step": 1.0,
        },
        {"conv": 0, "activation": "none", "qk_norm": "none", "output_norm": "rms", "output_gate": True},
    )
)
