"""Linear attention: every pair is added, nothing is ever taken back."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register

register(
    Preset(
        "linear_attention",
        "S_t = S_{t-1} + k_t^T v_t;  z_t = z_{t-1} + k_t;  y_t = q_t S_t / (q_t z_t^T);  q, k after elu + 1",
        "Katharopoulos et al. 2020 (2006.16236), Eq. 16-20; Miras, Eq. 8 with alpha = 1",
        {"memory": "matrix", "bias": "dot", "retention": "none", "algorithm": "gd", "step": 1.0},
        {
            "conv": 0,
            "activation": "none",
            "qk_norm": "none",
            "feature_map": "elu1",
            "normaliser": "sum",
            "output_norm": "none",
            "output_gate": False,
        },
    )
)
