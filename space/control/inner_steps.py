"""Every token's writes several times over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from miras_search.space.control.protocol import CONTROL, Inputs, Unchanged
from miras_search.space.fields import require, setting

if TYPE_CHECKING:
    from torch import Tensor

    from miras_search.space.design import DesignPoint


@CONTROL.register
@final
@dataclass(frozen=True, slots=True)
class InnerSteps(Unchanged):
    """A token's writes are made n times over: is a gain that of a better step, or only of more of them?

    Each round has the gates of the first, but what keep lets go is let go once. Parameters and state stay as they are.
    """

    name: ClassVar[str] = "inner_steps"
    equation: ClassVar[str] = "Z_{t,0} = a_t Z_{t-1};  Z_{t,j} = Z_{t,j-1} - e_t g_{t,j},  j = 1..n, all on one pair"
    source: ClassVar[str] = "more work at test time as a control for a better rule"

    n: int = setting(2, "rounds", named=True)

    def __post_init__(self) -> None:
        require(2 <= self.n <= 8, "n", f"{self.n} is not between 2 and 8")

    @property
    def repeats(self) -> int:
        """n."""
        return self.n

    def apply(self, inputs: Inputs) -> Inputs:
        """Everything that a write has, n times a token."""
        tokens = inputs.q.shape[1]

        def rounds(x: Tensor | None) -> Tensor | None:  # [B,T*writes,..] -> [B,T*n*writes,..]
            if x is None:
                return None
            each = x.shape[1] // tokens
            parted = x.view(x.shape[0], tokens, 1, each, *x.shape[2:])
            return parted.expand(-1, -1, self.n, *parted.shape[3:]).flatten(1, 3)

        k, v, step = (x for x in map(rounds, (inputs.k, inputs.v, inputs.step)) if x is not None)
        momentum, threshold = rounds(inputs.momentum), rounds(inputs.threshold)
        return inputs._replace(k=k, v=v, step=step, momentum=momentum, threshold=threshold)

    def problem(self, point: DesignPoint) -> str | None:
        """A second step on one pair must be one, and find another gradient than the first."""
        algorithm = point.algorithm
        if not point.descends:
            return "a memory that is solved for takes no steps that could be repeated"
        if algorithm.splits_keys:
            return "erasing and writing are two halves of one change: writing twice would store the value twice over"
        if algorithm.window > 1:
            return "a write of several tokens' pairs is made once: use an algorithm without a window"
        adds_up = algorithm.linear and not algorithm.has_momentum and point.retention.form == "dual"
        blind = point.bias.slope == 0 and point.memory.bare
        if adds_up and (blind or point.execution.gradient.sweeps == 0):
            why = "with the dot bias in a matrix" if blind else "with gradients frozen in a chunk"
            return f"{why} every round has the first one's gradient, so n of them are one step n times as long"
        return None
