"""What several presets share."""

from __future__ import annotations

from typing import Any

from miras_search.space.presets.protocol import Preset

DEEP: dict[str, Any] = {"mlp": {"depth": 2, "expansion": 4, "activation": "gelu", "residual": True, "norm": "layer"}}
"""The memory of Titans and Miras: x + LN(gelu(x W_0) W_1)."""

FROZEN: dict[str, Any] = {"chunk": 16, "gradient": "frozen", "gradient_at": "previous"}
"""Gradients of a chunk at its start, as Titans and Miras train."""

MIRAS_LAYER: dict[str, Any] = {
    "conv": 4,
    "activation": "silu",
    "qk_norm": "l2",
    "output_norm": "rms",
    "output_gate": True,
}
"""The layer of Titans and Miras (its Fig. 2), and of the delta rules before them: a short convolution, SiLU, unit q and
k, a norm and a gate on what is read. Miras' backbone has rotary positions, but it does not say where: none here.
"""

ATTENTION: dict[str, Any] = {"bias": "l2", "retention": "none", "algorithm": "nonparametric", "step": 1.0}
"""Softmax attention beside its memory of pairs: the mean of the values, every pair of the same weight."""

ATTENTION_LAYER: dict[str, Any] = {
    "conv": 0,
    "activation": "none",
    "qk_norm": "none",
    "rope": True,
    "output_norm": "none",
    "output_gate": False,
}
"""The layer of a Transformer: projections, rotary positions, attention, and a projection of what is read."""

TTT_LAYER: dict[str, Any] = {
    "conv": 4,
    "activation": "none",
    "qk_norm": "l2",
    "rope": True,
    "output_norm": "rms",
    "output_gate": True,
}
"""The layer of TTT-Linear and TTT-MLP, nearest to their Mamba backbone."""


def moneta(reading: str) -> dict[str, Any]:
    """Moneta's design, (p, q) = (3, 4), with its link read in one of three ways."""
    return {
        "memory": DEEP,
        "bias": {"lp": {"p": 3.0, "scale": "paper"}},
        "retention": {"lq": {"q": 4.0, "reading": reading}},
        "algorithm": "gd",
        "step": {"source": "data", "value": 0.05},
        "execution": FROZEN,
    }


def hybrid(memory: Preset, source: str) -> Preset:
    """The preset with every second layer a sliding-window attention."""
    return Preset(
        f"{memory.name}_h",
        f"{memory.equation};  by turns with sliding_window",
        source,
        memory.design,
        {**memory.model, "attention_every": 2},
    )
