"""Decaying fast weights: a decay for every weight, the product of one a key and one a value channel."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register

register(
    Preset(
        "dfw",
        "S_t = (a_t^T b_t) * S_{t-1} + k_t^T v_t,  a_t = sigmoid(x_t W_a + c_a),  b_t = sigmoid(x_t W_b + c_b)",
        "Mao 2022 (Fine-tuning pre-trained Transformers into decaying fast weights): no norm of the read there; an "
        "RMS norm a head here, as it is trained from scratch",
        {
            "memory": {"matrix": {"start": "zero"}},
            "bias": "dot",
            "retention": {"l2": {"keep": {"source": "data", "scope": "key_value", "squash": "sigmoid", "value": 0.97}}},
            "algorithm": "gd",
            "step": 1.0,
        },
        {"conv": 0, "activation": "none", "qk_norm": "none", "output_norm": "rms", "output_gate": False},
    )
)
