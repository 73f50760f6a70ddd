"""The p-th power error and its two smoothings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final, Literal, final

from miras_search.space.bias.l2 import L2
from miras_search.space.bias.logcosh import LogCosh, log_cosh
from miras_search.space.bias.protocol import BIAS, NO_THRESHOLD, Bias
from miras_search.space.fields import require, setting
from miras_search.space.jit import Jit
from miras_search.space.lazy import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

EPSILON: Final = 1e-6  # Remark 5
SHARPNESS: Final = 10.0  # ours: Remark 5 gives no number, so a study of tanh sweeps it


@BIAS.register
@final
@dataclass(frozen=True, slots=True)
class Lp:
    """p-th power error: below 2 robust to outliers, above 2 dominated by them. Smooth at 0 by epsilon or by tanh."""

    name: ClassVar[str] = "lp"
    equation: ClassVar[str] = (
        "l = s sum_j (r_j^2 + eps)^(p/2);  u = s p r (r^2 + eps)^(p/2 - 1);  s = 1/p (unit) or 1 (paper);  "
        "tanh: u = s p tanh(a r) (r^2 + eps)^((p - 1)/2), a rule without a loss but at p = 1"
    )
    source: ClassVar[str] = (
        "Miras, Eq. 10-11, at W_{t-1} where Eq. 11 prints W_t; epsilon: smoothed consistently; "
        "tanh: Remark 5, which smooths sign and |.| apart"
    )
    couples_channels: ClassVar[bool] = False
    threshold_scopes: ClassVar[tuple[str, ...]] = NO_THRESHOLD

    p: float = setting(1.5, "the exponent, at least 1", named=True)
    scale: Literal["unit", "paper"] = setting("unit", "1/p |r|^p, so that p = 2 is the half l2; or the printed |r|^p")
    epsilon: float = setting(EPSILON, "smoothing of |r| near 0")
    smoothing: Literal["epsilon", "tanh"] = setting(
        "epsilon", "the gradient of a smoothed loss; or Remark 5, tanh for the sign and epsilon for |r|"
    )
    sharpness: float = setting(SHARPNESS, "a of tanh(a r); the paper gives none")

    def __post_init__(self) -> None:
        require(self.p >= 1, "p", f"{self.p:g} is not convex: use p >= 1")
        require(
            self.epsilon > 0, "epsilon", f"{self.epsilon:g} must be positive: |r|^(p-1) has no slope at 0 otherwise"
        )
        require(self.sharpness > 0, "sharpness", f"{self.sharpness:g} must be positive: tanh(a r) stands for sign(r)")

    @property
    def slope(self) -> float | None:
        """Linear only at p = 2, and not with tanh."""
        return self.factor if self.p == 2 and self.smoothing == "epsilon" else None

    @property
    def factor(self) -> float:
        """s p: what multiplies r (r^2 + eps)^(p/2 - 1)."""
        return 1.0 if self.scale == "unit" else self.p

    @property
    def triton(self) -> Jit | None:
        """By smoothing, exponent, factor, epsilon and sharpness."""
        numbers = (self.p, self.factor, self.epsilon, self.sharpness)
        return Jit("miras_search.kernels.triton.bias_lp", (self.smoothing, *map(float, numbers)))

    def loss(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor | None:
        """s sum (r^2 + eps)^(p/2); with tanh, sum log cosh(a r) / a at p = 1 and None elsewhere."""
        r = p - v
        if self.smoothing == "tanh":
            return log_cosh(self.sharpness * r).sum(-1) / self.sharpness if self.p == 1 else None
        return self.factor / self.p * (r.square() + self.epsilon).pow(self.p / 2).sum(-1)

    def signal(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """s p r (r^2 + eps)^(p/2 - 1), or s p tanh(a r) (r^2 + eps)^((p - 1)/2)."""
        r = p - v
        if self.smoothing == "tanh":
            u = torch.tanh(self.sharpness * r) * (r.square() + self.epsilon).pow((self.p - 1) / 2)
        else:
            u = r * (r.square() + self.epsilon).pow(self.p / 2 - 1)
        return u if self.factor == 1.0 else self.factor * u

    def canonical(self) -> Bias:
        """l2 at p = 2; both scales are one at p = 1, and logcosh is tanh(r); settings that do nothing are reset."""
        if self.smoothing == "tanh":
            if self.p != 1:
                return self
            return LogCosh() if self.sharpness == 1 else replace(self, scale="unit", epsilon=EPSILON)
        if self.p == 2:
            return L2(scale="half" if self.scale == "unit" else "full")
        return replace(self, sharpness=SHARPNESS, scale="unit" if self.p == 1 else self.scale)
