"""The Hebbian bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from miras_search.space.bias.protocol import BIAS, NO_THRESHOLD, Bias
from miras_search.space.jit import Jit

if TYPE_CHECKING:
    from torch import Tensor


@BIAS.register
@final
@dataclass(frozen=True, slots=True)
class Dot:
    """Dot product: write the value along the key, whatever is stored already (Hebbian)."""

    name: ClassVar[str] = "dot"
    equation: ClassVar[str] = "l = -<p, v>;  u = -v"
    source: ClassVar[str] = "Miras, Eq. 8"
    couples_channels: ClassVar[bool] = False
    slope: ClassVar[float | None] = 0.0
    triton: ClassVar[Jit | None] = Jit("miras_search.kernels.triton.bias_dot")
    threshold_scopes: ClassVar[tuple[str, ...]] = NO_THRESHOLD

    def loss(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """-<p, v>."""
        return -(p * v).sum(-1)

    def signal(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """-v."""
        return -v.expand_as(p)

    def canonical(self) -> Bias:
        """Itself."""
        return self
