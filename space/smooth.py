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
# numbers that stand first in a subtraction or sum: as tensors they take one pass where a number would take two
_HALF = torch.tensor(0.5, dtype=torch.float64)
_TWO_DENSITIES = torch.tensor(2 * _DENSITY, dtype=torch.float64)


class Derivatives(NamedTuple):
    """An elementwise function f with its derivatives; at a corner those that torch's autograd takes.

    What fills buffers does so without a copy: those of a chunk are as large as half a cache.
    """

    fill: Callable[[Tensor, Tensor], object]  # x, y <- f(x)
    pull: Callable[[Tensor, Tensor], object]  # g, x: g <- g f'(x)
    jet: Callable[[Tensor, Tensor, Tensor, Tensor], object]  # x, y <- f(x), slope <- f'(x), bend <- f''(x)


def _gelu_fill(x: Tensor, y: Tensor) -> None:
    torch.ops.aten.gelu.out(x, out=y)


def _gelu_pull(g: Tensor, x: Tensor) -> None:
    torch.ops.aten.gelu_backward.grad_input(g, x, grad_input=g)


def _gelu_bend(x: Tensor) -> Tensor:
    """(2 - x^2) phi(x)."""
    square = x * x
    return torch.rsub(square, 2 * _DENSITY, alpha=_DENSITY) * torch.exp(-0.5 * square)


def _gelu_jet(x: Tensor, y: Tensor, slope: Tensor, bend: Tensor) -> None:
    """x Phi, Phi + x phi, (2 - x^2) phi."""
    e = x * x
    torch.sub(_TWO_DENSITIES, e, alpha=_DENSITY, out=bend)
    e.mul_(-0.5 / math.log(2)).exp2_()  # phi over its density at 0; MKL's exp, which torch takes, is half as fast
    bend.mul_(e)
    torch.add(_HALF, torch.mul(x, math.sqrt(0.5), out=slope).erf_(), alpha=0.5, out=slope)
    torch.mul(x, slope, out=y)
    slope.addcmul_(x, e, value=_DENSITY)


def _silu_fill(x: Tensor, y: Tensor) -> None:
    torch.ops.aten.silu.out(x, out=y)


def _silu_pull(g: Tensor, x: Tensor) -> None:
    torch.ops.aten.silu_backward.grad_input(g, x, grad_input=g)


def _silu_bend(x: Tensor) -> Tensor:
    """s (1 - s) (2 + x (1 - 2 s))."""
    s = torch.sigmoid(x)
    return s * (1 - s) * (2 + x * (1 - 2 * s))


def _silu_jet(x: Tensor, y: Tensor, slope: Tensor, bend: Tensor) -> None:
    """x s, s + x s (1 - s), s (1 - s) (2 + x (1 - 2 s))."""
    s = torch.sigmoid(x)
    rest = 1 - s
    torch.mul(x, s, out=y)
    torch.addcmul(s, y, rest, out=slope)
    torch.mul(x, 1 - 2 * s, out=bend)
    bend.add_(2).mul_(s).mul_(rest)


def _relu_fill(x: Tensor, y: Tensor) -> None:
    torch.clamp_min(x, 0, out=y)


def _relu_pull(g: Tensor, x: Tensor) -> None:
    torch.ops.aten.threshold_backward.grad_input(g, x, 0, grad_input=g)


def _relu_jet(x: Tensor, y: Tensor, slope: Tensor, bend: Tensor) -> None:
    _relu_fill(x, y)
    slope.copy_(x > 0)
    bend.zero_()


def _tanh_fill(x: Tensor, y: Tensor) -> None:
    torch.tanh(x, out=y)


def _tanh_pull(g: Tensor, x: Tensor) -> None:
    torch.ops.aten.tanh_backward.grad_input(g, torch.tanh(x), grad_input=g)


def _tanh_jet(x: Tensor, y: Tensor, slope: Tensor, bend: Tensor) -> None:
    """y, 1 - y^2, -2 y (1 - y^2)."""
    torch.tanh(x, out=y)
    torch.mul(y, y, out=slope).neg_().add_(1)
    torch.mul(y, slope, out=bend).mul_(-2)


DERIVATIVES: Mapping[str, Derivatives] = {
    "gelu": Derivatives(_gelu_fill, _gelu_pull, _gelu_jet),
    "silu": Derivatives(_silu_fill, _silu_pull, _silu_jet),
    "relu": Derivatives(_relu_fill, _relu_pull, _relu_jet),
    "tanh": Derivatives(_tanh_fill, _tanh_pull, _tanh_jet),
}
"""By the activation's name."""


class _Keeping(NamedTuple):
    """A function whose derivative is worth keeping for the outer loop."""

    plain: Callable[[Tensor], Tensor]  # x -> f(x)
    pair: Callable[[Tensor], tuple[Tensor, Tensor]]  # x -> f(x), f'(x)
    bend: Callable[[Tensor], Tensor]  # x -> f''(x)


def _gelu_pair(x: Tensor) -> tuple[Tensor, Tensor]:
    """x Phi(x), and Phi(x) + x phi(x)."""
    return functional.gelu(x), torch.ops.aten.gelu_backward(torch.ones_like(x), x)


def _silu_pair(x: Tensor) -> tuple[Tensor, Tensor]:
    """x s(x), and s(x) (1 + x (1 - s(x)))."""
    s = torch.sigmoid(x)
    value = x * s
    return value, torch.addcmul(value, s, 1 - value)


_KEEPING = {
    "gelu": _Keeping(functional.gelu, _gelu_pair, _gelu_bend),
    "silu": _Keeping(functional.silu, _silu_pair, _silu_bend),
}


class _Kept(torch.autograd.Function):
    """The named function of x, and its derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, name: str) -> tuple[Tensor, Tensor]:
        return _KEEPING[name].pair(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, str], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], output[1])
        ctx.name = inputs[1]

    @staticmethod
    def backward(ctx: Any, value: Tensor | None, slope: Tensor | None) -> tuple[Tensor | None, None]:
        """f' value + f'' slope."""
        x, first = ctx.saved_tensors
        if slope is None:
            return None if value is None else first * value, None
        second = _KEEPING[ctx.name].bend(x)
        return second * slope if value is None else torch.addcmul(first * value, second, slope), None


def gelu(x: Tensor) -> Tensor:
    """x Phi(x), elementwise."""
    return _kept("gelu", x)


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x), elementwise."""
    return _kept("silu", x)


def _kept(name: str, x: Tensor) -> Tensor:
    if x.numel() < WORTH:
        return _KEEPING[name].plain(x)
    value: Tensor = _Kept.apply(x, name)[0]  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return value
