"""Retention by a Bregman divergence: mirror descent, every weight under a link of its own.

With F(W) = sum f(W) the gate adds to Z = f'(W) and reads W = (f')^-1(Z). The curvature of f decides where weights are
slow to move: at the ends of an interval (logit, tanh), near zero (entropy, arcsinh) or away from it (power). A global
term with the same F multiplies f'(W') by keep, so it draws weights to where f' = 0. Shapes: Z, W `[B,H,rows,cols]`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, final

from miras_search.space.fields import require, setting
from miras_search.space.gates import KEEP, Gate
from miras_search.space.lazy import LazyModule
from miras_search.space.retention.l2 import L2Retention
from miras_search.space.retention.protocol import RETENTION, Dual, Retention, Static, check_keep

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

WIDTH, EXPONENT, EPSILON = 0.1, 3.0, 1e-6
CEILING = 30.0  # exp(30) = 1e13, whose square is still finite in float32: a norm or a product of two layers needs it
MARGIN = 0.05  # of a start from the ends of a range: nearer, the link is so flat that no gradient would move it


@RETENTION.register
@final
@dataclass(frozen=True, slots=True)
class BregmanRetention(Dual):
    """Mirror descent: weights bounded, positive, or moved in proportion to their size, as the potential has it.

    Weights of logit lie in (0, 1) and keep draws them to 1/2; those of entropy are positive and drawn to 1; the others
    are signed and drawn to 0. Where a start lies outside of the range (a negative one under logit or entropy, or an
    empty memory) it is moved to 0.05 inside of the nearest end.
    """

    name: ClassVar[str] = "bregman"
    equation: ClassVar[str] = (
        "Z_t = a_t Z_{t-1} - e_t g_t;  W = (f')^-1(Z):  sigmoid(Z) (logit), tanh(Z) (tanh), b sinh(Z) (arcsinh), "
        "exp(Z) (entropy), sign(Z) |Z|^(1/(r-1)) (power);  coupled: e_t -> a_t e_t"
    )
    source: ClassVar[str] = (
        "Miras, Variant 5 (logit; its divergence with the missing grad F(W')); other potentials are not in the paper"
    )
    objective: ClassVar[str] = (
        "<W - W', g> + 1/e D_F(W, W') + 1/b F(W), F(W) = sum f(W), so a = b/(b+e) and the step is a e"
    )

    potential: Literal["logit", "tanh", "arcsinh", "entropy", "power"] = setting(
        "logit", "f' = ln(w/(1-w)), artanh w, arsinh(w/b), ln w, or sign(w) |w|^(r-1)", named=True
    )
    b: float = setting(WIDTH, "arcsinh: weights below b move as under gradient descent, larger ones by their size")
    r: float = setting(EXPONENT, "power: the exponent of f = |w|^r / r, above 1; 2 is weight decay")
    epsilon: float = setting(EPSILON, "power: smoothing of |Z|, whose root is infinitely steep at 0 for r > 2")
    keep: Gate = setting(KEEP, "the share of the old Z that stays")
    coupled: bool = setting(False, "one objective with a local and a global term: the step is a e; else both are free")

    def __post_init__(self) -> None:
        check_keep(self.keep)
        require(self.b > 0, "b", f"{self.b:g} must be positive")
        require(1 < self.r <= 16, "r", f"{self.r:g} is not above 1 and at most 16")
        require(self.epsilon > 0, "epsilon", f"{self.epsilon:g} must be positive")

    def start(self, weights: Tensor) -> Tensor:
        """f' of the weights, moved into the range first."""
        if self.potential == "logit":
            return torch.logit(weights, eps=MARGIN)
        if self.potential == "tanh":
            return torch.atanh(weights.clamp(MARGIN - 1, 1 - MARGIN))
        if self.potential == "arcsinh":
            return torch.asinh(weights / self.b)
        if self.potential == "entropy":
            return torch.log(weights.clamp(min=MARGIN))
        return torch.sign(weights) * weights.abs().pow(self.r - 1)

    def link(self, dual: Tensor, static: Static) -> Tensor:
        """(f')^-1(Z), entry by entry."""
        if self.potential == "logit":
            return torch.sigmoid(dual)
        if self.potential == "tanh":
            return torch.tanh(dual)
        if self.potential == "arcsinh":
            return self.b * torch.sinh(dual.clamp(-CEILING, CEILING))
        if self.potential == "entropy":
            return torch.exp(dual.clamp(max=CEILING))
        return dual * (dual.square() + self.epsilon).pow((1 / (self.r - 1) - 1) / 2)

    def canonical(self) -> Retention:
        """Weight decay at a power of 2; settings that do nothing are reset."""
        power = self.potential == "power"
        if power and self.r == 2:
            return L2Retention(self.keep, self.coupled).canonical()
        return replace(
            self,
            b=self.b if self.potential == "arcsinh" else WIDTH,
            r=self.r if power else EXPONENT,
            epsilon=self.epsilon if power else EPSILON,
            coupled=self.coupled and not self.keep.is_one,
        )
