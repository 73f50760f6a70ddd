"""TTT-Linear: a matrix behind a residual and a norm, trained on each mini-batch of 16 tokens."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register
from miras_search.space.presets.shared import FROZEN, TTT_LAYER

register(
    Preset(
        "ttt_linear",
        "W_t = W_{t-1} - e_t grad 1/2 |k_t + LN(k_t W') - v_t|^2,  y_t = q_t + LN(q_t W_t),  W' the chunk's start",
        "Sun et al. 2024 (2407.04620), its target v - k without the residual; e_t = sigmoid(x w), base step 1 on "
        "unit q and k where its code divides by the key dimension; no bias of the memory and no learned weight by "
        "place in the mini-batch; around it its Mamba backbone with SiLU for the gate's GELU, an RMS norm for LN, "
        "RoPE over the sequence",
        {
            "memory": {"matrix": {"residual": True, "norm": "layer", "affine": True}},
            "bias": "l2",
            "retention": "none",
            "algorithm": "gd",
            "step": {"source": "data", "value": 0.5},
            "execution": FROZEN,
        },
        TTT_LAYER,
    )
)
