"""Titans' long-term memory: a deep memory with momentum and decay."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register
from miras_search.space.presets.shared import DEEP, FROZEN, MIRAS_LAYER

register(
    Preset(
        "titans_lmm",
        "M_t = a_t M_{t-1} + S_t;  S_t = b_t S_{t-1} - e_t grad |M_{t-1}(k_t) - v_t|^2",
        "Behrouz et al. 2024 (2501.00663), Eq. 13-14 with a_t = 1 - alpha_t, as the layer alone (LMM); gates one a "
        "head",
        {
            "memory": DEEP,
            "bias": {"l2": {"scale": "full"}},
            "retention": "l2",
            "algorithm": "momentum",
            "step": {"source": "data", "value": 0.1},
            "execution": FROZEN,
        },
        MIRAS_LAYER,
    )
)
