"""Lightning attention: linear attention with a fixed decay a head, on ALiBi's slopes."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register

register(
    Preset(
        "lightning",
        "S_t = exp(-s_h) S_{t-1} + k_t^T v_t,  s_h = 2^(-8h/H), h = 1..H, H a power of 2",
        "Lightning Attention-2 (2401.04658), MiniMax-01 (2501.08313): slopes that also shrink with depth, one norm "
        "over all heads and a sigmoid gate there; the same slopes in every layer, a norm a head and a SiLU gate here",
        {
            "memory": {"matrix": {"start": "zero"}},
            "bias": "dot",
            "retention": {"l2": {"keep": {"source": "fixed", "value": 0.36787944117144233, "ladder": "slopes"}}},
            "algorithm": "gd",
            "step": 1.0,
        },
        {"conv": 0, "activation": "silu", "qk_norm": "none", "output_norm": "rms", "output_gate": True},
    )
)
