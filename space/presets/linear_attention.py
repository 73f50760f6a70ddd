"""Linear attention: every pair is added, nothing is ever taken back."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register

register(
    Preset(
        "linear_attention",
        "S_t = S_{t-1} + k_t^T v_t",
        "Katharopoulos et al. 2020; Miras, Eq. 8 with alpha = 1",
        {"memory": "matrix", "bias": "dot", "retention": "none", "algorithm": "gd", "step": 1.0},
    )
)
