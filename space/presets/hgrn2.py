"""HGRN2: what a key channel forgets is what it takes in."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register

register(
    Preset(
        "hgrn2",
        "S_t = diag(f_t) S_{t-1} + (1 - f_t)^T v_t,  f_t = l + (1 - l) sigmoid(x_t W + b)",
        "Qin et al. 2024 (2404.07904): l is learned, 0 in the first layer and growing with depth there; 0.5 in every "
        "layer here",
        {
            "memory": {"matrix": {"start": "zero"}},
            "bias": "dot",
            "retention": {
                "l2": {
                    "keep": {
                        "source": "data",
                        "scope": "key",
                        "squash": "sigmoid",
                        "floor": 0.5,
                        "value": 0.75,
                        "tie": "key",
                    }
                }
            },
            "algorithm": "gd",
            "step": 1.0,
        },
        {
            "conv": 0,
            "activation": "none",
            "qk_norm": "none",
            "feature_map": "silu",
            "output_norm": "rms",
            "output_gate": False,
        },
    )
)
