"""Retention by a Bregman divergence: mirror descent, every weight under a link of its own.

With F(W) = sum f(W) the gate adds to Z = f'(W) and reads W = (f')^-1(Z). The curvature of f decides where weights are
slow to move: at the ends of an interval (logit, tanh), near zero (entropy, arcsinh) or away from it (power). A global
term with the same F multiplies f'(W') by keep, so it draws weights to where f' = 0. Shapes: Z, W `[B,H,rows,cols]`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, final

from miras_search.space.fields import require, setting
from miras_search.space.gates import KEEP, Gate
from miras_search.space.jit import Jit
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
        return POTENTIALS[self.potential].slope(weights, self)

    def link(self, dual: Tensor, static: Static) -> Tensor:
        """(f')^-1(Z), entry by entry."""
        return POTENTIALS[self.potential].weights(dual, self)

    @property
    def identity(self) -> bool:
        """A power of 2 is weight decay."""
        return self.potential == "power" and self.r == 2

    @property
    def triton(self) -> Jit:
        """The link of the potential."""
        power = ((1 / (self.r - 1) - 1) / 2, self.epsilon)
        numbers = {"arcsinh": (self.b,), "power": power}.get(self.potential, ())
        return Jit("miras_search.kernels.triton.link_bregman", (self.potential, *numbers))

    def canonical(self) -> Retention:
        """Weight decay at a power of 2; settings that do nothing are reset."""
        if self.identity:
            return L2Retention(self.keep, self.coupled).canonical()
        uses = POTENTIALS[self.potential].uses
        return replace(
            self,
            b=self.b if "b" in uses else WIDTH,
            r=self.r if "r" in uses else EXPONENT,
            epsilon=self.epsilon if "epsilon" in uses else EPSILON,
            coupled=self.coupled and not self.keep.is_one,
        )


class Potential(NamedTuple):
    """A potential f, by the slope that is added to and its inverse; both are given the gate for its settings."""

    slope: Callable[[Tensor, BregmanRetention], Tensor]
    """f'(w) of weights w, moved into the range first"""
    weights: Callable[[Tensor, BregmanRetention], Tensor]
    """(f')^-1(z)"""
    uses: tuple[str, ...] = ()
    """settings that mean something to it"""


POTENTIALS: dict[str, Potential] = {
    "logit": Potential(lambda w, gate: torch.logit(w, eps=MARGIN), lambda z, gate: torch.sigmoid(z)),
    "tanh": Potential(lambda w, gate: torch.atanh(w.clamp(MARGIN - 1, 1 - MARGIN)), lambda z, gate: torch.tanh(z)),
    "arcsinh": Potential(
        lambda w, gate: torch.asinh(w / gate.b),
        lambda z, gate: gate.b * torch.sinh(z.clamp(-CEILING, CEILING)),
        uses=("b",),
    ),
    "entropy": Potential(
        lambda w, gate: torch.log(w.clamp(min=MARGIN)), lambda z, gate: torch.exp(z.clamp(max=CEILING))
    ),
    "power": Potential(
        lambda w, gate: torch.sign(w) * w.abs().pow(gate.r - 1),
        lambda z, gate: z * (z.square() + gate.epsilon).pow((1 / (gate.r - 1) - 1) / 2),
        uses=("r", "epsilon"),
    ),
}
