"""OmegaNet: each step descends the loss of the last tokens together."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register
from miras_search.space.presets.shared import DEEP, FROZEN, MIRAS_LAYER

register(
    Preset(
        "omega_net",
        "M_t = a_t M_{t-1} + S_t;  S_t = b_t S_{t-1} - e_t sum_{i=t-c+1..t} s_{t,i} grad |M(k_i) - v_i|^2,  c = 4",
        "ATLAS (2505.23735), the Omega rule with momentum (algorithm.momentum: 0 takes it away); c is not the paper's. "
        "Left out: its polynomial feature map, whose degree and coefficients are not known here",
        {
            "memory": DEEP,
            "bias": {"l2": {"scale": "full"}},
            "retention": "l2",
            "algorithm": {"omega": {"window": 4, "momentum": {"source": "data", "value": 0.8}}},
            "step": {"source": "data", "value": 0.1},
            "execution": FROZEN,
        },
        MIRAS_LAYER,
    )
)
