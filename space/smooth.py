"""Activations with their derivatives, for memories whose inner loop differentiates them.

The gradient of a memory's loss takes f', and the outer loop differentiates that again. `DERIVATIVES` has both by name,
for code with a backward of its own. For autograd, GELU and SiLU have f' as a second output: torch's own functions
recompute it for each of the two and spell f'' out in a dozen passes. Imported lazily: it loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

WORTH = 16_384  # elements below which calling two functions of our own costs more than it saves
_DENSITY = 1 / math.sqrt(2 * math.pi)


class Derivatives(NamedTuple):
    """An elementwise function f with its derivatives; at a corner those that torch's autograd takes."""

    value: Callable[[Tensor], Tensor]  # x -> f(x)
    pulled: Callable[[Tensor, Tensor], Tensor]  # g, x -> g f'(x)
    jet: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # x -> f(x), f'(x), f''(x), from one look at x


def _gelu_bend(x: Tensor) -> Tensor:
    """(2 - x^2) phi(x)."""
    square = x * x
    return torch.rsub(square, 2 * _DENSITY, alpha=_DENSITY) * torch.exp(-0.5 * square)


def _gelu_jet(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x Phi, Phi + x phi, (2 - x^2) phi."""
    square = x * x
    density = torch.mul(square, -0.5).exp_().mul_(_DENSITY)
    share = torch.mul(x, math.sqrt(0.5)).erf_().add_(1).mul_(0.5)
    return x * share, torch.addcmul(share, x, density), torch.rsub(square, 2).mul_(density)


def _silu_bend(x: Tensor) -> Tensor:
    """s (1 - s) (2 + x (1 - 2 s))."""
    s = torch.sigmoid(x)
    return s * (1 - s) * (2 + x * (1 - 2 * s))


def _silu_jet(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    s = torch.sigmoid(x)
    value = x * s
    return value, torch.addcmul(value, s, 1 - value), _silu_bend(x)


def _relu_pulled(g: Tensor, x: Tensor) -> Tensor:
    found: Tensor = torch.ops.aten.threshold_backward(g, x, 0)
    return found


def _relu_jet(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.relu(x), (x > 0).to(x), torch.zeros_like(x)


def _tanh_pulled(g: Tensor, x: Tensor) -> Tensor:
    found: Tensor = torch.ops.aten.tanh_backward(g, torch.tanh(x))
    return found


def _tanh_jet(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y, 1 - y^2, -2 y (1 - y^2)."""
    y = torch.tanh(x)
    slope = 1 - y * y
    return y, slope, -2 * y * slope


DERIVATIVES: Mapping[str, Derivatives] = {
    "gelu": Derivatives(functional.gelu, torch.ops.aten.gelu_backward, _gelu_jet),
    "silu": Derivatives(functional.silu, torch.ops.aten.silu_backward, _silu_jet),
    "relu": Derivatives(torch.relu, _relu_pulled, _relu_jet),
    "tanh": Derivatives(torch.tanh, _tanh_pulled, _tanh_jet),
}
"""By the activation's name."""


class _Gelu(torch.autograd.Function):
    """x Phi(x), and Phi(x) + x phi(x)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return functional.gelu(x), torch.ops.aten.gelu_backward(torch.ones_like(x), x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], output[1])

    @staticmethod
    def backward(ctx: Any, value: Tensor | None, slope: Tensor | None) -> Tensor | None:
        x, first = ctx.saved_tensors
        if slope is None:
            return _scaled(first, value)
        return _joined(first, value, _gelu_bend(x), slope)


class _Silu(torch.autograd.Function):
    """x s(x), and s(x) (1 + x (1 - s(x)))."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        s = torch.sigmoid(x)
        value = x * s
        return value, torch.addcmul(value, s, 1 - value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], output[1])

    @staticmethod
    def backward(ctx: Any, value: Tensor | None, slope: Tensor | None) -> Tensor | None:
        x, first = ctx.saved_tensors
        if slope is None:
            return _scaled(first, value)
        return _joined(first, value, _silu_bend(x), slope)


def _scaled(first: Tensor, value: Tensor | None) -> Tensor | None:
    return None if value is None else first * value


def _joined(first: Tensor, value: Tensor | None, second: Tensor, slope: Tensor) -> Tensor:
    """f' value + f'' slope."""
    return second * slope if value is None else torch.addcmul(first * value, second, slope)


def gelu(x: Tensor) -> Tensor:
    """x Phi(x), elementwise."""
    if x.numel() < WORTH:
        return functional.gelu(x)
    value: Tensor = _Gelu.apply(x)[0]  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return value


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x), elementwise."""
    if x.numel() < WORTH:
        return functional.silu(x)
    value: Tensor = _Silu.apply(x)[0]  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return value
