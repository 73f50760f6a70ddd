"""RWKV-7: a removal key and a replacement key, with decay and erasure by key channel."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register

register(
    Preset(
        "rwkv7",
        "S_t = (diag(w_t) - (a_t * h_t)^T h_t) S_{t-1} + c_t^T v_t,  |h_t| = 1,  w_t = exp(-e^(-1/2) sigmoid(.)),  "
        "a_t = sigmoid(.)",
        "Peng et al. 2025 (2503.14456): token shift, h and c scaled from one key (c by a), tanh in the decay's "
        "bottleneck, values mixed with the first layer's, a bonus for the token itself and a gate without SiLU there; "
        "a projection each for h and c, and none of these here",
        {
            "memory": {"matrix": {"start": "zero"}},
            "bias": "l2",
            "retention": {
                "l2": {"keep": {"source": "data", "scope": "key", "squash": "rwkv", "rank": 32, "value": 0.97}}
            },
            "algorithm": {"erase_write": {"erase": {"source": "data", "scope": "key", "rank": 32}, "unit": True}},
            "step": 1.0,
        },
        {"conv": 0, "activation": "none", "qk_norm": "none", "output_norm": "rms", "output_gate": True},
    )
)
