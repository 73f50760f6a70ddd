"""Published models as design points. Each is the memory's recurrence; projections and block are the model's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from miras_search.space.design import DesignPoint
from miras_search.space.fields import Path, SpecError, nearest


@dataclass(frozen=True, slots=True)
class Preset:
    """A published model: its recurrence in the project's row-vector form, its paper, and its plain design."""

    name: str
    equation: str
    source: str
    spec: dict[str, Any]


_DEEP = {"mlp": {"depth": 2, "expansion": 4, "activation": "gelu", "residual": True, "norm": "layer"}}
_FROZEN = {"chunk": 16, "gradient": "frozen", "gradient_at": "previous"}

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "linear_attention",
            "S_t = S_{t-1} + k_t^T v_t",
            "Katharopoulos et al. 2020; Miras, Eq. 8 with alpha = 1",
            {"memory": "matrix", "bias": "dot", "retention": "none", "algorithm": "gd", "step": 1.0},
        ),
        Preset(
            "delta_net",
            "S_t = (I - b_t k_t^T k_t) S_{t-1} + b_t k_t^T v_t",
            "Schlag et al. 2021; Yang et al. 2024",
            {"memory": "matrix", "bias": "l2", "retention": "none", "algorithm": "gd", "step": "data"},
        ),
        Preset(
            "gated_delta_net",
            "S_t = a_t (I - b_t k_t^T k_t) S_{t-1} + b_t k_t^T v_t",
            "Yang, Kautz and Hatamizadeh 2024: the gradient is taken after the decay",
            {
                "memory": "matrix",
                "bias": "l2",
                "retention": {"l2": {"keep": {"source": "data", "squash": "mamba", "value": 0.97}}},
                "algorithm": "gd",
                "step": "data",
                "execution": {"gradient_at": "decayed"},
            },
        ),
        Preset(
            "delta_product",
            "S_{t,0} = a_t S_{t-1};  S_{t,j} = (I - b_{t,j} k_{t,j}^T k_{t,j}) S_{t,j-1} + b_{t,j} k_{t,j}^T v_{t,j}",
            "Siems et al. 2025 (gated form), n = 2, eigenvalues in [-1, 1]",
            {
                "memory": "matrix",
                "bias": "l2",
                "retention": {"l2": {"keep": {"source": "data", "squash": "mamba", "value": 0.97}}},
                "algorithm": {"multi_step": {"writes": 2}},
                "step": {"source": "data", "scale": 2.0},
                "execution": {"gradient_at": "decayed"},
            },
        ),
        Preset(
            "titans_lmm",
            "M_t = a_t M_{t-1} + S_t;  S_t = b_t S_{t-1} - e_t grad |M_{t-1}(k_t) - v_t|^2",
            "Behrouz et al. 2024 (2501.00663), Eq. 13-14 with a_t = 1 - alpha_t",
            {
                "memory": _DEEP,
                "bias": {"l2": {"scale": "full"}},
                "retention": "l2",
                "algorithm": "momentum",
                "step": {"source": "data", "value": 0.1},
                "execution": _FROZEN,
            },
        ),
        Preset(
            "yaad",
            "W_t = a_t W_{t-1} - e_t (grad l2 if |M(k_t) - v_t| <= d_t else d_t grad l1), gradients at W_{t-1}",
            "Miras, Eq. 26",
            {
                "memory": _DEEP,
                "bias": {"huber": {"form": "switch", "delta": {"source": "data", "squash": "softplus", "value": 1.0}}},
                "retention": "l2",
                "algorithm": "gd",
                "step": {"source": "data", "value": 0.1},
                "execution": _FROZEN,
            },
        ),
        Preset(
            "memora",
            "W_t = softmax(a_t log W_{t-1} - e_t grad l2(W_{t-1}; k_t, v_t))",
            "Miras, Eq. 27, kept in logits",
            {
                "memory": _DEEP,
                "bias": "l2",
                "retention": "kl",
                "algorithm": "gd",
                "step": {"source": "data", "value": 0.5},
                "execution": _FROZEN,
            },
        ),
    )
}


def preset(name: str, where: Path = ()) -> DesignPoint:
    """The design point of a published model. Raises `SpecError` naming the nearest preset."""
    if name not in PRESETS:
        raise SpecError.at(where, f"unknown preset '{name}'{nearest(name, PRESETS)}")
    return DesignPoint.parse(PRESETS[name].spec, where)
