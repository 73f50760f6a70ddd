"""Attentional bias, axis 2: the inner loss whose minimiser the memory approaches.

A bias gives, for a prediction p = M(k) and a target v, the loss l(p, v) and its signal u = dl/dp, from which every
memory gradient is back-propagated. Residual r = p - v. Row vectors; `p, v [..., V]`, thresholds `[..., 1]` or None.
Equations are those of arXiv 2504.13173 with the corrections the docstrings name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, final

from miras_search.space.fields import require, setting
from miras_search.space.gates import Gate
from miras_search.space.lazy import LazyModule
from miras_search.space.option import Axis, Facts

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

EPS = 1e-12  # inside norms: the gradient of |r| at r = 0 is 0, not NaN


class Bias(Facts, Protocol):
    """What the kernels need to know of a bias."""

    @property
    def couples_channels(self) -> bool:
        """Whether the signal of one channel depends on the others."""

    @property
    def slope(self) -> float | None:
        """g where u = g p + (a function of v): a signal linear in p can be solved exactly; else None."""

    @property
    def triton(self) -> str | None:
        """The pair of jit functions in `kernels/triton/signals.py` that computes the signal; None: there is none."""

    def loss(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor | None:
        """The loss per token [...], or None where the bias is a rule for u that no loss has as its gradient."""

    def signal(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """u = dl/dp, [..., V], differentiable."""

    def canonical(self) -> Bias:
        """The simplest spelling of the same function."""


BIAS: Axis[Bias] = Axis("bias", "the inner loss that the memory descends")


def safe_norm(r: Tensor) -> Tensor:
    """|r|_2 over the last axis, kept, with a finite gradient at 0."""
    return torch.sqrt(r.square().sum(-1, keepdim=True) + EPS)


def _given(threshold: Tensor | None) -> Tensor:
    if threshold is None:
        raise ValueError("this bias needs a threshold")
    return threshold


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
    triton: ClassVar[str | None] = None

    def loss(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """-<p, v>."""
        return -(p * v).sum(-1)

    def signal(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """-v."""
        return -v.expand_as(p)

    def canonical(self) -> Bias:
        """Itself."""
        return self


@BIAS.register
@final
@dataclass(frozen=True, slots=True)
class L2:
    """Squared error: the delta rule."""

    name: ClassVar[str] = "l2"
    equation: ClassVar[str] = "l = 1/2 |r|^2 (half) or |r|^2 (full);  u = r or 2 r"
    source: ClassVar[str] = "Miras, Eq. 9; half in Eq. 14, 15 and 31, full in Eq. 11 at p = 2"
    couples_channels: ClassVar[bool] = False

    scale: Literal["half", "full"] = setting("half", "the factor in front of |r|^2: 1/2 or 1")

    @property
    def slope(self) -> float:
        """1 (half) or 2 (full)."""
        return 1.0 if self.scale == "half" else 2.0

    @property
    def triton(self) -> str | None:
        """The half form."""
        return "l2" if self.scale == "half" else None

    def loss(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """slope / 2 |r|^2."""
        return self.slope / 2 * (p - v).square().sum(-1)

    def signal(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """slope * r."""
        return p - v if self.scale == "half" else 2 * (p - v)

    def canonical(self) -> Bias:
        """Itself."""
        return self


@BIAS.register
@final
@dataclass(frozen=True, slots=True)
class Lp:
    """p-th power error: below 2 robust to outliers, above 2 dominated by them. Smooth at 0 by epsilon."""

    name: ClassVar[str] = "lp"
    equation: ClassVar[str] = (
        "l = s sum_j (r_j^2 + eps)^(p/2);  u = s p r (r^2 + eps)^(p/2 - 1);  s = 1/p (unit) or 1 (paper)"
    )
    source: ClassVar[str] = "Miras, Eq. 10-11, smoothed consistently (Remark 5 smooths sign and |.| apart)"
    couples_channels: ClassVar[bool] = False
    triton: ClassVar[str | None] = None

    p: float = setting(1.5, "the exponent, at least 1", named=True)
    scale: Literal["unit", "paper"] = setting("unit", "1/p |r|^p, so that p = 2 is the half l2; or the printed |r|^p")
    epsilon: float = setting(1e-6, "smoothing of |r| near 0")

    def __post_init__(self) -> None:
        require(self.p >= 1, "p", f"{self.p:g} is not convex: use p >= 1")
        require(
            self.epsilon > 0, "epsilon", f"{self.epsilon:g} must be positive: |r|^(p-1) has no slope at 0 otherwise"
        )

    @property
    def slope(self) -> float | None:
        """Linear only at p = 2."""
        return None if self.p != 2 else self.factor

    @property
    def factor(self) -> float:
        """s p: what multiplies r (r^2 + eps)^(p/2 - 1)."""
        return 1.0 if self.scale == "unit" else self.p

    def loss(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """s sum (r^2 + eps)^(p/2)."""
        return self.factor / self.p * ((p - v).square() + self.epsilon).pow(self.p / 2).sum(-1)

    def signal(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """s p r (r^2 + eps)^(p/2 - 1)."""
        r = p - v
        u = r * (r.square() + self.epsilon).pow(self.p / 2 - 1)
        return u if self.factor == 1.0 else self.factor * u

    def canonical(self) -> Bias:
        """l2 at p = 2; at p = 1 both scales are one."""
        if self.p == 2:
            return L2(scale="half" if self.scale == "unit" else "full")
        return replace(self, scale="unit") if self.p == 1 else self


@BIAS.register
@final
@dataclass(frozen=True, slots=True)
class Huber:
    """Squared near zero, linear beyond delta: an outlier token writes no more than delta."""

    name: ClassVar[str] = "huber"
    equation: ClassVar[str] = (
        "coordinate: u = clamp(r, -d, d);  norm: u = r min(1, d/|r|);  switch: u = r if |r| <= d else d sign(r)"
    )
    source: ClassVar[str] = "Miras, Eq. 13-14 (coordinate), Eq. 15 (norm), Eq. 16 and 26 (switch, Yaad; discontinuous)"

    form: Literal["coordinate", "norm", "switch"] = setting(
        "norm", "per channel, of the residual's norm, or Yaad's switch"
    )
    delta: Gate = setting(Gate("fixed", squash="softplus", value=1.0), "the threshold")

    def __post_init__(self) -> None:
        require(self.delta.source != "fixed" or self.delta.value > 0, "delta", "the threshold must be positive")
        require(self.delta.squash != "mamba", "delta", "mamba's decay is a keep gate, not a threshold")

    @property
    def couples_channels(self) -> bool:
        """The norm sees every channel."""
        return self.form != "coordinate"

    @property
    def slope(self) -> None:
        """Not linear."""
        return None

    @property
    def triton(self) -> str | None:
        """The norm form."""
        return "huber_norm" if self.form == "norm" else None

    def loss(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor | None:
        """H_d(r_j) summed, or H_d(|r|); None for the switch, which is nobody's gradient."""
        if self.form == "switch":
            return None
        d, r = _given(threshold), p - v
        size = r.abs() if self.form == "coordinate" else safe_norm(r)
        return torch.where(size <= d, size.square() / 2, d * (size - d / 2)).sum(-1)

    def signal(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """As the equation of the form says."""
        d, r = _given(threshold), p - v
        if self.form == "coordinate":
            return torch.minimum(torch.maximum(r, -d), d)
        if self.form == "norm":
            return r * (d / safe_norm(r)).clamp(max=1.0)
        return torch.where(safe_norm(r) <= d, r, d * torch.sign(r))

    def canonical(self) -> Bias:
        """Itself."""
        return self


@BIAS.register
@final
@dataclass(frozen=True, slots=True)
class ValueShift:
    """Robust to an adversarial shift of the value by at most delta: the worst case over a ball."""

    name: ClassVar[str] = "value_shift"
    equation: ClassVar[str] = "l = max over |d| <= D of 1/2 |r - d|^2 = 1/2 |r|^2 + D |r| + D^2/2;  u = r + D r/|r|"
    source: ClassVar[str] = "Miras, Eq. 17"
    couples_channels: ClassVar[bool] = True
    slope: ClassVar[float | None] = None
    triton: ClassVar[str | None] = None

    delta: Gate = setting(Gate("fixed", squash="softplus", value=0.1), "radius of the ball of shifts")

    def __post_init__(self) -> None:
        require(self.delta.source != "fixed" or self.delta.value >= 0, "delta", "the radius cannot be negative")
        require(self.delta.squash != "mamba", "delta", "mamba's decay is a keep gate, not a radius")

    def loss(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """1/2 |r|^2 + D |r| + D^2/2."""
        d, size = _given(threshold), safe_norm(p - v)
        return (size.square() / 2 + d * size + d.square() / 2).sum(-1)

    def signal(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """r + D r/|r|."""
        r = p - v
        return r + _given(threshold) * r / safe_norm(r)

    def canonical(self) -> Bias:
        """l2 when no shift is feared."""
        return L2() if self.delta.source == "fixed" and self.delta.value == 0 else self


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
    triton: ClassVar[str | None] = None

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
