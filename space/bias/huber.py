"""Huber's family: squared near zero, linear beyond a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from miras_search.space.bias.protocol import BIAS, PER_CHANNEL, PER_HEAD, Bias, given, per_head, safe_norm, sign
from miras_search.space.fields import require, setting
from miras_search.space.gates import Gate, threshold_problem
from miras_search.space.jit import Jit
from miras_search.space.lazy import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

FLOOR = 1e-12  # a softplus of a very negative number is 0, and 0/0 is no signal


def _stretch(r: Tensor, d: Tensor, *, of_norm: bool) -> tuple[Tensor, Tensor]:
    """r^2 and sqrt(d^2 + r^2)/d, per channel or of the norm: r^2/d^2 has a slope in d that float32 cannot hold."""
    square = r.square().sum(-1, keepdim=True) if of_norm else r.square()
    d = d.clamp(min=FLOOR)
    return square, torch.sqrt(d.square() + square) / d


@BIAS.register
@final
@dataclass(frozen=True, slots=True)
class Huber:
    """Squared near zero, linear beyond delta: an outlier token writes no more than delta."""

    name: ClassVar[str] = "huber"
    equation: ClassVar[str] = (
        "coordinate: u = clamp(r, -d, d);  norm: u = r min(1, d/|r|);  pseudo: u = r/(1 + r^2/d^2)^(1/2);  "
        "pseudo_norm: u = r/(1 + |r|^2/d^2)^(1/2);  switch: u = r if |r| <= d else d sign(r)"
    )
    source: ClassVar[str] = (
        "Miras, Eq. 13-14 (coordinate), Eq. 15 (norm), Eq. 16 and 26 (switch, Yaad; discontinuous); "
        "pseudo and pseudo_norm are not in it"
    )

    form: Literal["coordinate", "norm", "pseudo", "pseudo_norm", "switch"] = setting(
        "norm", "per channel, of the residual's norm, a smooth form of either, or Yaad's switch"
    )
    delta: Gate = setting(Gate("fixed", squash="softplus", value=1.0), "the threshold")

    def __post_init__(self) -> None:
        require(self.delta.source != "fixed" or self.delta.value > 0, "delta", "the threshold must be positive")
        problem = threshold_problem(self.delta)
        require(problem is None, "delta", problem or "")

    @property
    def couples_channels(self) -> bool:
        """The norm sees every channel."""
        return self.form not in ("coordinate", "pseudo")

    @property
    def slope(self) -> None:
        """Not linear."""
        return None

    @property
    def triton(self) -> Jit | None:
        """By the form."""
        return Jit("miras_search.kernels.triton.bias_huber", (self.form,))

    @property
    def threshold_scopes(self) -> tuple[str, ...]:
        """A channel can have its own where channels are apart; Miras declares one for Eq. 16, which compares a norm."""
        return PER_HEAD if self.couples_channels else PER_CHANNEL

    def loss(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor | None:
        """H_d(r_j) summed, or H_d(|r|), or d^2 (sqrt(1 + r^2/d^2) - 1); None for the switch, which is nobody's
        gradient.
        """
        if self.form == "switch":
            return None
        d, r = self._threshold(threshold), p - v
        if self.form in ("pseudo", "pseudo_norm"):
            square, stretch = _stretch(r, d, of_norm=self.form == "pseudo_norm")
            return (square / (1 + stretch)).sum(-1)  # the difference of two nearly equal numbers, without the loss
        size = r.abs() if self.form == "coordinate" else safe_norm(r)
        return torch.where(size <= d, size.square() / 2, d * (size - d / 2)).sum(-1)

    def signal(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """As the equation of the form says."""
        d, r = self._threshold(threshold), p - v
        if self.form == "coordinate":
            return torch.minimum(torch.maximum(r, -d), d)
        if self.form == "norm":
            return r * (d / safe_norm(r)).clamp(max=1.0)
        if self.form == "switch":
            return torch.where(safe_norm(r) <= d, r, d * sign(r))
        return r / _stretch(r, d, of_norm=self.form == "pseudo_norm")[1]

    def _threshold(self, threshold: Tensor | None) -> Tensor:
        return per_head(threshold) if self.couples_channels else given(threshold)

    def canonical(self) -> Bias:
        """Itself."""
        return self
