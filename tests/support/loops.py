"""Designs for the token loop and the decode step, and their comparison with the recurrence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from memories import Case, case
from torch import Tensor

from miras_search.kernels.state import State
from miras_search.space.design import DesignPoint

DATA: dict[str, Any] = {"source": "data"}
HUBER: dict[str, Any] = {"huber": {"delta": {**DATA, "squash": "softplus", "value": 1.0}}}
BY_CHANNEL: dict[str, Any] = {"huber": {"form": "coordinate", "delta": {**HUBER["huber"]["delta"], "scope": "value"}}}
LEARNED_KL: dict[str, Any] = {"kl": {"slice": "row", "scale": 2.0, "learned_scale": True}}
CHUNKS: dict[str, Any] = {"chunk": 4}

DESIGNS: dict[str, dict[str, Any]] = {
    "no link": {"bias": HUBER},
    "kl": {"bias": HUBER, "retention": "kl"},
    "kl, decayed": {"bias": BY_CHANNEL, "retention": LEARNED_KL, "execution": {"gradient_at": "decayed"}},
    "kl, momentum": {"retention": {"kl": {"slice": "whole"}}, "algorithm": "momentum"},
    "kl, two writes": {"retention": LEARNED_KL, "algorithm": {"multi_step": {"writes": 2}}},
    "lq": {"bias": HUBER, "retention": {"lq": {"epsilon": 0.1}}},
    "elastic net, read": {
        "retention": {"elastic_net": {"view": "ftrl", "threshold": "smooth", "learned_shrink": True}}
    },
    "elastic net, in place": {
        "retention": {"elastic_net": {"threshold": "smooth", "shrink": 0.05, "learned_shrink": True}},
        "step": {**DATA, "scope": "value"},
    },
    "elastic net, in place, decayed": {
        "bias": HUBER,
        "retention": {"elastic_net": {"shrink": 0.05}},
        "execution": {"gradient_at": "decayed"},
        "algorithm": "momentum",
    },
    "bregman by channel": {
        "retention": {"bregman": {"potential": "tanh", "keep": {**DATA, "scope": "key"}}},
        "step": {**DATA, "scope": "key_value"},
    },
    "no link by channel": {
        "retention": {"l2": {"keep": {**DATA, "scope": "key_value"}}},
        "step": {**DATA, "scope": "key"},
        "algorithm": {"momentum": {"momentum": {**DATA, "scope": "value"}}},
        "execution": {"gradient_at": "decayed"},
    },
    "erase and write": {"retention": "l2", "algorithm": "erase_write"},
    "kl, frozen": {"bias": HUBER, "retention": "kl", "execution": {**CHUNKS, "gradient": "frozen"}},
    "l2, frozen, decayed": {
        "retention": "l2",
        "algorithm": "momentum",
        "execution": {**CHUNKS, "gradient": "frozen", "gradient_at": "decayed"},
    },
    "kl by chunks": {"retention": LEARNED_KL, "execution": {**CHUNKS, "link_refresh": "chunk"}},
    "kl by chunks, decayed": {
        "bias": HUBER,
        "retention": "kl",
        "algorithm": "momentum",
        "execution": {**CHUNKS, "link_refresh": "chunk", "gradient_at": "decayed"},
    },
    "kl by chunks, frozen": {
        "retention": LEARNED_KL,
        "algorithm": {"multi_step": {"writes": 2}},
        "execution": {**CHUNKS, "link_refresh": "chunk", "gradient": "frozen"},
    },
    "lq, restarted": {
        "retention": {"lq": {"q": 1.5, "reading": "primal_index", "epsilon": 0.1, "restart": True}},
        "execution": {**CHUNKS, "link_refresh": "chunk", "gradient": "frozen"},
    },
}
"""One design for each mode of the loop, and for each place of a gate and a learned number in it."""


def given(point: DesignPoint, tokens: int, *, seed: int = 0, **sizes: int) -> Case:
    """Random inputs in float64."""
    return case(point, tokens, seed=seed, **{"batch": 1, "heads": 1, "key_dim": 3, "value_dim": 5, **sizes})


def as_dtype(x: Case, dtype: torch.dtype, device: str = "cpu") -> Case:
    """The same inputs, rounded."""
    return x.with_leaves([leaf.to(dtype).to(device) for leaf in x.leaves()])


def outputs_and_gradients(run: Callable[..., tuple[Tensor, State]], point: DesignPoint, x: Case) -> dict[str, Tensor]:
    """y, every tensor of the final state, and the gradients of a random functional of all of them by every input."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in x.leaves()]
    copy = x.with_leaves(leaves)
    y, state = run(point, copy.inputs, copy.start, copy.static)
    found = {"y": y, **state.tensors()}
    draw = torch.Generator().manual_seed(99)
    weights = [torch.randn(z.shape, generator=draw, dtype=torch.float64).to(z) for z in found.values()]
    loss = torch.stack([(z * w).sum() for z, w in zip(found.values(), weights, strict=True)]).sum()
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    named = {f"d_{i}": g for i, g in enumerate(gradients) if g is not None and g.any()}
    return {**{name: z.detach() for name, z in found.items()}, **named}


def rms_ratio(found: Tensor, expected: Tensor) -> float:
    """RMS of the difference over RMS of what is expected; NaN where either is."""
    wide = expected.double().cpu()
    scale = wide.square().mean().sqrt().clamp(min=1e-30)
    return float((found.double().cpu() - wide).square().mean().sqrt() / scale)


def assert_agrees(found: dict[str, Tensor], expected: dict[str, Tensor], ratio: float) -> None:
    """The same tensors, each within a ratio of its size."""
    assert found.keys() == expected.keys()
    ratios = {name: rms_ratio(found[name], expected[name]) for name in expected}
    assert all(r <= ratio for r in ratios.values()), ratios  # NaN compares false
