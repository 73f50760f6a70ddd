"""ATLAS: the Omega rule with Muon as its optimiser."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register
from miras_search.space.presets.shared import DEEP, FROZEN, MIRAS_LAYER

register(
    Preset(
        "atlas",
        "M_t = a_t M_{t-1} - e_t NS_5(S_t);  S_t = b_t S_{t-1} + sum_{i=t-c+1..t} s_{t,i} grad |M(k_i) - v_i|^2,  c "
        "= 4",
        "ATLAS (2505.23735); NS_5 five of Muon's Newton-Schulz steps; c is not the paper's. Left out: its polynomial "
        "feature map, whose degree and coefficients are not known here",
        {
            "memory": DEEP,
            "bias": {"l2": {"scale": "full"}},
            "retention": "l2",
            "algorithm": {"muon": {"window": 4, "iterations": 5, "share": "data"}},
            "step": {"source": "data", "value": 0.1},
            "execution": FROZEN,
        },
        MIRAS_LAYER,
    )
)
