"""The divergence of two distributions over channels."""

from __future__ import annotations

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


@BIAS.register
@final
@dataclass(frozen=True, slots=True)
class Kl:
    """Kullback-Leibler divergence of the softmaxes: values are read as logits of a distribution."""

    name: ClassVar[str] = "kl"
    equation: ClassVar[str] = "l = KL(softmax(v) || softmax(p));  u = softmax(p) - softmax(v)"
    source: ClassVar[str] = "Miras, Fig. 1 names it without an equation; derived here"
    couples_channels: ClassVar[bool] = True
    slope: ClassVar[float | None] = None
    triton: ClassVar[Jit | None] = Jit("miras_search.kernels.triton.bias_kl")
    threshold_scopes: ClassVar[tuple[str, ...]] = NO_THRESHOLD

    def loss(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """KL(softmax(v) || softmax(p))."""
        target = torch.log_softmax(v, -1)
        return (target.exp() * (target - torch.log_softmax(p, -1))).sum(-1)

    def signal(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """softmax(p) - softmax(v)."""
        return torch.softmax(p, -1) - torch.softmax(v, -1)

    def canonical(self) -> Bias:
        """Itself."""
        return self
