"""MesaNet: the inner loss is minimised exactly at every token."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register

register(
    Preset(
        "mesa",
        "H_t = a_t H_{t-1} + b_t k_t^T k_t;  G_t = a_t G_{t-1} + b_t k_t^T v_t;  y_t = q_t (H_t + diag(l))^-1 G_t",
        "von Oswald et al. 2023 (2309.05858) and 2025 (2506.05233): a, b sigmoids of the input, l = 0.25 + softplus, "
        "started at 1; solved exactly, where MesaNet takes 30 steps of conjugate gradients (algorithm.iterations: 30); "
        "its convolution is on q and k, here on v too",
        {
            "memory": "matrix",
            "bias": "l2",
            "retention": "l2",
            "algorithm": {"newton": {"ridge": 1.0, "least": 0.25}},
            "step": "data",
        },
        {"conv": 4, "activation": "silu", "qk_norm": "l2", "output_norm": "rms", "output_gate": False},
    )
)
