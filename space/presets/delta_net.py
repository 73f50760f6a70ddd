"""DeltaNet: the delta rule, one step of gradient descent on l2 a token."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register

register(
    Preset(
        "delta_net",
        "S_t = (I - b_t k_t^T k_t) S_{t-1} + b_t k_t^T v_t",
        "Schlag et al. 2021 (2102.11174); Yang et al. 2024 (2406.06484): no output gate and S_0 = 0 there; the gate "
        "of Gated DeltaNet and a learned S_0 here",
        {"memory": "matrix", "bias": "l2", "retention": "none", "algorithm": "gd", "step": "data"},
    )
)
