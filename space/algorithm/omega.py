"""The omega rule: a token's step descends the loss of the last tokens together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from miras_search.space.algorithm.descent import Gd, Momentum
from miras_search.space.algorithm.protocol import (
    ALGORITHM,
    Algorithm,
    Coefficients,
    Descent,
    Moments,
    Pairs,
    Writes,
    surprise,
    surprise_coefficients,
)
from miras_search.space.fields import require, setting
from miras_search.space.gates import Gate, fixed, momentum_problem, product_keys, times

if TYPE_CHECKING:
    from torch import Tensor

    from miras_search.space.bias import Bias

SHARE = Gate(source="data", squash="sigmoid", value=0.5)


def check_window(window: int, share: Gate) -> None:
    """Raise where a number of tokens or a gate cannot be a window and the weights of its pairs."""
    require(1 <= window <= 64, "window", f"{window} is not between 1 and 64")
    if share.source == "fixed":
        require(share.value > 0, "share", f"a fixed share is positive, got {share.value:g}")
        return
    require(share.squash == "sigmoid", "share", "the shares of a window are squashed by a sigmoid")
    require(share.scope == "head", "share", f"a share is one number a pair and head, not by {share.scope}")


def shares(gates: Mapping[str, Tensor], share: Gate) -> Tensor | None:
    """The weight [B,T,H,window] of each pair, oldest first; None where all are 1."""
    if share.is_one:
        return None
    found = gates["share"]
    return found if found.dim() == 4 else found.unsqueeze(-1)  # a single value a token comes as [B,T,H]


@ALGORITHM.register
@final
@dataclass(frozen=True, slots=True)
class Omega(Descent):
    """One step on the loss of the last c tokens, each pair with a weight that the token gives it (ATLAS)."""

    name: ClassVar[str] = "omega"
    equation: ClassVar[str] = (
        "G_t = sum_{i=t-c+1..t} s_{t,i} grad l(W'; k_i, v_i);  Z_t = a_t Z_{t-1} + S_t,  S_t = b_t S_{t-1} - e_t G_t"
    )
    source: ClassVar[str] = "ATLAS (2505.23735), the Omega rule"

    window: int = setting(4, "c, the tokens whose pairs each step takes, its own included", named=True)
    share: Gate = setting(SHARE, "the weight of each pair in the window")
    momentum: Gate = setting(fixed(0.0), "the share of the past surprise that stays; fixed 0: no momentum")

    def __post_init__(self) -> None:
        check_window(self.window, self.share)
        problem = momentum_problem(self.momentum)
        require(problem is None, "momentum", problem or "")

    @property
    def has_momentum(self) -> bool:
        """Unless the gate is the constant 0."""
        return not self.momentum.is_zero

    def repeats(self, slot: str) -> int:
        """A share for every pair."""
        return self.window if slot == "share" else 1

    def assemble(self, pairs: Pairs, gates: Mapping[str, Tensor], bias: Bias) -> Writes:
        """One write of the window; alone in its window, a pair has its share in the step."""
        k, v, step = pairs.k.flatten(1, 2), pairs.v.flatten(1, 2), gates["step"].flatten(1, 2)
        share = shares(gates, self.share)
        if share is None or self.window > 1:
            return Writes(k, v, step, share=share)
        if step.dim() < k.dim():
            return Writes(k, v, step * share.squeeze(-1))
        return Writes(k, v, times(step, share, product_keys(step, k, v)))

    def moved(self, moments: Moments, gradient: Tensor, step: Tensor, momentum: Tensor | None) -> Moments:
        """S = b S - e g, if there is momentum."""
        return surprise(moments, gradient, step, momentum) if self.has_momentum else ()

    def change(self, moments: Moments, gradient: Tensor, step: Tensor) -> Tensor:
        """S, or -e g."""
        return moments[0] if self.has_momentum else -step * gradient

    def coefficients(self, log_keep: Tensor | None, step: Tensor, momentum: Tensor | None) -> Coefficients:
        """Those of gradient descent, with momentum or without."""
        if self.has_momentum:
            return surprise_coefficients(log_keep, step, momentum)
        return Gd().coefficients(log_keep, step, None)

    def canonical(self) -> Algorithm:
        """One pair of weight 1 is descent, with momentum or without."""
        if self.window > 1 or not self.share.is_one:
            return self
        return Momentum(momentum=self.momentum).canonical()
