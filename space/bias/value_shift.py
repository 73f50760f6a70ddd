"""The worst case over shifts of the value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from miras_search.space.bias.l2 import L2
from miras_search.space.bias.protocol import BIAS, PER_HEAD, Bias, per_head, safe_norm
from miras_search.space.fields import require, setting
from miras_search.space.gates import Gate, threshold_problem
from miras_search.space.jit import Jit

if TYPE_CHECKING:
    from torch import Tensor


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
    triton: ClassVar[Jit | None] = Jit("miras_search.kernels.triton.bias_value_shift")
    threshold_scopes: ClassVar[tuple[str, ...]] = PER_HEAD

    delta: Gate = setting(Gate("fixed", squash="softplus", value=0.1), "radius of the ball of shifts")

    def __post_init__(self) -> None:
        require(self.delta.source != "fixed" or self.delta.value >= 0, "delta", "the radius cannot be negative")
        problem = threshold_problem(self.delta)
        require(problem is None, "delta", problem or "")

    def loss(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """1/2 |r|^2 + D |r| + D^2/2."""
        d, size = per_head(threshold), safe_norm(p - v)
        return (size.square() / 2 + d * size + d.square() / 2).sum(-1)

    def signal(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """r + D r/|r|, 0 at 0."""
        r = p - v
        return r + per_head(threshold) * r / safe_norm(r)

    def canonical(self) -> Bias:
        """l2 when no shift is feared."""
        return L2() if self.delta.source == "fixed" and self.delta.value == 0 else self
