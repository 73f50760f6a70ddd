"""Implicit gradient descent: each write solves for the memory instead of following its slope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from miras_search.space.algorithm.protocol import ALGORITHM, Algorithm, Descent, Pairs, Writes
from miras_search.space.gates import Scope

if TYPE_CHECKING:
    from torch import Tensor

    from miras_search.space.bias import Bias
    from miras_search.space.memory import Memory


@ALGORITHM.register
@final
@dataclass(frozen=True, slots=True)
class Implicit(Descent):
    """The loss itself is minimised near the faded memory, so that no step is too long (Longhorn)."""

    name: ClassVar[str] = "implicit"
    equation: ClassVar[str] = (
        "W_t = argmin_W |W - a_t W'|^2 / (2 e_t) + l(W; k_t, v_t): for u = g p + f(v) a gradient step at a_t W' of "
        "length e_t / (1 + g e_t |k_t|^2)"
    )
    source: ClassVar[str] = "Longhorn (2024), exactly: without its diagonal approximation; Miras, section 4 and Table 1"

    @property
    def proximal(self) -> bool:
        """It is what it does."""
        return True

    @property
    def step_scopes(self) -> tuple[Scope, ...]:
        """A head or a value channel: the quadratic losses fall apart by value channel, each with its own 1/e."""
        return ("head", "value")

    def assemble(self, pairs: Pairs, gates: Mapping[str, Tensor], bias: Bias) -> Writes:
        """One write, its step shortened by what the key alone would overshoot."""
        k, step = pairs.k.flatten(1, 2), gates["step"].flatten(1, 2)
        slope = bias.slope
        if slope is None:
            raise ValueError(f"an implicit step needs a signal linear in the prediction, which {bias.name}'s is not")
        length = k.square().sum(-1)
        length = length.unsqueeze(-1) if step.dim() > length.dim() else length  # a step by channel
        return Writes(k, pairs.v.flatten(1, 2), step / (1 + slope * step * length))

    def problem(self, memory: Memory, bias: Bias) -> str | None:
        """The closed form is that of a quadratic loss in a matrix."""
        if not memory.bare:
            return "an implicit step has a closed form only for a matrix without residual and norm"
        if not bias.slope:
            return (
                "an implicit step needs a loss that is quadratic in the prediction: use l2, or gd where the loss is "
                "linear (both are then the same)"
            )
        return None

    def canonical(self) -> Algorithm:
        """Itself."""
        return self
