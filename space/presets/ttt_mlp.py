"""TTT-MLP: TTT-Linear with a perceptron of two layers as memory."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register
from miras_search.space.presets.shared import FROZEN, TTT_LAYER

register(
    Preset(
        "ttt_mlp",
        "W_t = W_{t-1} - e_t grad 1/2 |M(k_t; W') - v_t|^2,  M(x) = x + LN(gelu(x W_0) W_1),  W' the chunk's start",
        "Sun et al. 2024 (2407.04620): e_t = 0.1 sigmoid(x w), expansion 4; departures as ttt_linear's",
        {
            "memory": {
                "mlp": {
                    "depth": 2,
                    "expansion": 4,
                    "activation": "gelu",
                    "residual": True,
                    "norm": "layer",
                    "affine": True,
                }
            },
            "bias": "l2",
            "retention": "none",
            "algorithm": "gd",
            "step": {"source": "data", "scale": 0.1, "value": 0.05},
            "execution": FROZEN,
        },
        TTT_LAYER,
    )
)
