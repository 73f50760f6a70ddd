"""Yaad: a deep memory that answers to outliers by their sign."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register
from miras_search.space.presets.shared import DEEP, FROZEN, MIRAS_LAYER

YAAD = register(
    Preset(
        "yaad",
        "W_t = a_t W_{t-1} - e_t (grad l2 if |M(k_t) - v_t| <= d_t else d_t grad l1), gradients at W_{t-1}",
        "Miras, Eq. 26, the half l2. Open in the paper: where gates by channel act (one a head here), rotary "
        "positions (none here)",
        {
            "memory": DEEP,
            "bias": {"huber": {"form": "switch", "delta": {"source": "data", "squash": "softplus", "value": 1.0}}},
            "retention": "l2",
            "algorithm": "gd",
            "step": {"source": "data", "value": 0.1},
            "execution": FROZEN,
        },
        MIRAS_LAYER,
    )
)
