"""GELU and SiLU with their derivative as a second output, for memories whose inner loop differentiates them.

The gradient of a memory's loss takes f', and the outer loop differentiates that again. Torch's own functions recompute
f' for each of the two and spell f'' out in a dozen passes; here all three come from one look at x. Imported lazily: it
loads torch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

WORTH = 16_384  # elements below which calling two functions of our own costs more than it saves


class _Gelu(torch.autograd.Function):
    """x Phi(x), and Phi(x) + x phi(x)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.nn.functional.gelu(x), torch.ops.aten.gelu_backward(torch.ones_like(x), x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], output[1])

    @staticmethod
    def backward(ctx: Any, value: Tensor | None, slope: Tensor | None) -> Tensor | None:
        x, first = ctx.saved_tensors
        if slope is None:
            return _scaled(first, value)
        square = x * x
        second = torch.rsub(_DENSITY * square, 2 * _DENSITY)  # f'' = (2 - x^2) phi(x)
        return _joined(first, value, second * torch.exp(-0.5 * square), slope)


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
        s = torch.sigmoid(x)
        second = s * (1 - s) * (2 + x * (1 - 2 * s))
        return _joined(first, value, second, slope)


_DENSITY = 1 / math.sqrt(2 * math.pi)


def _scaled(first: Tensor, value: Tensor | None) -> Tensor | None:
    return None if value is None else first * value


def _joined(first: Tensor, value: Tensor | None, second: Tensor, slope: Tensor) -> Tensor:
    """f' value + f'' slope."""
    return second * slope if value is None else torch.addcmul(first * value, second, slope)


def gelu(x: Tensor) -> Tensor:
    """x Phi(x), elementwise."""
    if x.numel() < WORTH:
        return torch.nn.functional.gelu(x)
    value: Tensor = _Gelu.apply(x)[0]  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return value


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x), elementwise."""
    if x.numel() < WORTH:
        return torch.nn.functional.silu(x)
    value: Tensor = _Silu.apply(x)[0]  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return value
