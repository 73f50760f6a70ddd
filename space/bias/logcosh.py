"""The logarithm of the hyperbolic cosine: squared near zero, absolute far away, without a threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from miras_search.space.bias.protocol import BIAS, NO_THRESHOLD, Bias
from miras_search.space.jit import Jit
from miras_search.space.lazy import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")


def log_cosh(x: Tensor) -> Tensor:
    """log cosh x elementwise, without the overflow of cosh beyond 90."""
    size = x.abs()
    return size + torch.nn.functional.softplus(-2 * size) - math.log(2)


@BIAS.register
@final
@dataclass(frozen=True, slots=True)
class LogCosh:
    """Smooth everywhere: squared error near zero, absolute error far away, so that no channel writes more than 1."""

    name: ClassVar[str] = "logcosh"
    equation: ClassVar[str] = "l = sum_j log cosh(r_j);  u = tanh(r)"
    source: ClassVar[str] = "not in Miras: a smooth relative of its Huber biases (Eq. 13-15); Remark 5 at p = 1, a = 1"
    couples_channels: ClassVar[bool] = False
    slope: ClassVar[float | None] = None
    triton: ClassVar[Jit | None] = Jit("miras_search.kernels.triton.bias_logcosh")
    threshold_scopes: ClassVar[tuple[str, ...]] = NO_THRESHOLD

    def loss(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """Sum of log cosh(r)."""
        return log_cosh(p - v).sum(-1)

    def signal(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """tanh(r)."""
        return torch.tanh(p - v)

    def canonical(self) -> Bias:
        """Itself."""
        return self
