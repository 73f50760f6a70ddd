"""DeltaProduct: several delta steps a token."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register

register(
    Preset(
        "delta_product",
        "S_{t,0} = a_t S_{t-1};  S_{t,j} = (I - b_{t,j} k_{t,j}^T k_{t,j}) S_{t,j-1} + b_{t,j} k_{t,j}^T v_{t,j}",
        "Siems et al. 2025 (2502.10297, gated form), n = 2, eigenvalues in [-1, 1]; S_0 = 0 there, learned here",
        {
            "memory": "matrix",
            "bias": "l2",
            "retention": {"l2": {"keep": {"source": "data", "squash": "mamba", "value": 0.97}}},
            "algorithm": {"multi_step": {"writes": 2}},
            "step": {"source": "data", "scale": 2.0},
            "execution": {"gradient_at": "decayed"},
        },
    )
)
