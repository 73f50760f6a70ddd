"""The absolute error: only the sign of what went wrong is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from miras_search.space.bias.lp import EPSILON, SHARPNESS, Lp
from miras_search.space.bias.protocol import BIAS, NO_THRESHOLD, Bias, sign
from miras_search.space.fields import require, setting
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
class L1:
    """Value-less: the sign of the residual is written, whatever its size.

    Unsmoothed, the sign is flat, so the outer loop learns values only through which side of them the memory is on;
    smoothed, it is lp at p = 1.
    """

    name: ClassVar[str] = "l1"
    equation: ClassVar[str] = "l = sum_j |r_j|;  u = sign(r);  epsilon: u = r/(r^2 + eps)^(1/2);  tanh: u = tanh(a r)"
    source: ClassVar[str] = (
        "Miras, Eq. 12, at W_{t-1} where it prints W_t: the signal is -1 or 1, not the memory; smoothing as in lp"
    )
    couples_channels: ClassVar[bool] = False
    slope: ClassVar[float | None] = None
    threshold_scopes: ClassVar[tuple[str, ...]] = NO_THRESHOLD

    smoothing: Literal["none", "epsilon", "tanh"] = setting("none", "the printed sign, or one of lp's smooth ones")
    epsilon: float = setting(EPSILON, "smoothing of |r| near 0 (epsilon)")
    sharpness: float = setting(SHARPNESS, "a of tanh(a r) (tanh); the paper gives none")

    def __post_init__(self) -> None:
        require(self.epsilon > 0, "epsilon", f"{self.epsilon:g} must be positive: smoothing: none says no smoothing")
        require(self.sharpness > 0, "sharpness", f"{self.sharpness:g} must be positive: tanh(a r) stands for sign(r)")

    @property
    def smooth(self) -> Lp | None:
        """The same function as lp; None without smoothing."""
        if self.smoothing == "none":
            return None
        return Lp(p=1.0, smoothing=self.smoothing, epsilon=self.epsilon, sharpness=self.sharpness)

    @property
    def triton(self) -> Jit | None:
        """The sign, or that of lp."""
        smooth = self.smooth
        return Jit("miras_search.kernels.triton.bias_l1") if smooth is None else smooth.triton

    def loss(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor | None:
        """Sum of |r|, or of its smooth form."""
        smooth = self.smooth
        return (p - v).abs().sum(-1) if smooth is None else smooth.loss(p, v, threshold)

    def signal(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """sign(r), 0 at 0; or its smooth form."""
        smooth = self.smooth
        return sign(p - v) if smooth is None else smooth.signal(p, v, threshold)

    def canonical(self) -> Bias:
        """lp at p = 1 where it is smooth, the older spelling; else without the settings that do nothing."""
        smooth = self.smooth
        return L1() if smooth is None else smooth.canonical()
