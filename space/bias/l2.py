"""The squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from miras_search.space.bias.protocol import BIAS, NO_THRESHOLD, Bias
from miras_search.space.fields import setting
from miras_search.space.jit import Jit

if TYPE_CHECKING:
    from torch import Tensor


@BIAS.register
@final
@dataclass(frozen=True, slots=True)
class L2:
    """Squared error: the delta rule."""

    name: ClassVar[str] = "l2"
    equation: ClassVar[str] = "l = 1/2 |r|^2 (half) or |r|^2 (full);  u = r or 2 r"
    source: ClassVar[str] = "Miras, Eq. 9; half in Eq. 14, 15 and 31, full in Eq. 11 at p = 2"
    couples_channels: ClassVar[bool] = False
    threshold_scopes: ClassVar[tuple[str, ...]] = NO_THRESHOLD

    scale: Literal["half", "full"] = setting("half", "the factor in front of |r|^2: 1/2 or 1")

    @property
    def slope(self) -> float:
        """1 (half) or 2 (full)."""
        return 1.0 if self.scale == "half" else 2.0

    @property
    def triton(self) -> Jit | None:
        """By the slope."""
        return Jit("miras_search.kernels.triton.bias_l2", (self.slope,))

    def loss(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """slope / 2 |r|^2."""
        return self.slope / 2 * (p - v).square().sum(-1)

    def signal(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """slope * r."""
        return p - v if self.scale == "half" else 2 * (p - v)

    def canonical(self) -> Bias:
        """Itself."""
        return self
