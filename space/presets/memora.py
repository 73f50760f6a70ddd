"""Memora: a deep memory whose weights are softmaxes."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register
from miras_search.space.presets.shared import DEEP, FROZEN, MIRAS_LAYER

MEMORA = register(
    Preset(
        "memora",
        "W_t = softmax(a_t log W_{t-1} - e_t grad l2(W_{t-1}; k_t, v_t))",
        "Miras, Eq. 27, kept in logits, the half l2. Open in the paper: the softmax's slice (a column here) and sum (1 "
        "here), where gates by channel act (one a head here), rotary positions (none here)",
        {
            "memory": DEEP,
            "bias": "l2",
            "retention": "kl",
            "algorithm": "gd",
            "step": {"source": "data", "value": 0.5},
            "execution": FROZEN,
        },
        MIRAS_LAYER,
    )
)
