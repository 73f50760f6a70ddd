"""Several gradient steps a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from miras_search.space.algorithm.descent import Gd
from miras_search.space.algorithm.protocol import ALGORITHM, Algorithm, Descent, Pairs, Writes
from miras_search.space.fields import require, setting

if TYPE_CHECKING:
    from torch import Tensor

    from miras_search.space.bias import Bias
    from miras_search.space.memory import Memory


@ALGORITHM.register
@final
@dataclass(frozen=True, slots=True)
class MultiStep(Descent):
    """Several gradient steps a token, each with its own key, value and step (DeltaProduct), or all on one pair."""

    name: ClassVar[str] = "multi_step"
    equation: ClassVar[str] = "Z_{t,0} = a_t Z_{t-1};  Z_{t,j} = Z_{t,j-1} - e_{t,j} g_{t,j},  j = 1..n"
    source: ClassVar[str] = "DeltaProduct (2025); Miras' Table 1 prints the sum garbled"

    writes: int = setting(2, "steps a token", named=True)
    own_keys: bool = setting(True, "project a key and a value for every step; false repeats the token's one pair")

    def __post_init__(self) -> None:
        require(1 <= self.writes <= 8, "writes", f"{self.writes} is not between 1 and 8")

    @property
    def steps(self) -> int:
        """One a write."""
        return self.writes

    @property
    def keys(self) -> int:
        """One a write, or one for all."""
        return self.writes if self.own_keys else 1

    @property
    def values(self) -> int:
        """As the keys."""
        return self.keys

    def assemble(self, pairs: Pairs, gates: Mapping[str, Tensor], bias: Bias) -> Writes:
        """One write a pair; the token's one pair again and again without own keys."""
        repeats = self.writes // self.keys
        k, v = (x.repeat_interleave(repeats, 2) if repeats > 1 else x for x in pairs)
        return Writes(k.flatten(1, 2), v.flatten(1, 2), gates["step"].flatten(1, 2))

    def problem(self, memory: Memory, bias: Bias) -> str | None:
        """Steps on one pair need a gradient that the first of them changes."""
        if self.writes > 1 and not self.own_keys and bias.slope == 0 and memory.bare:
            return (
                "the dot bias is linear in the value, so several steps on one pair are one step n times as long: "
                "set own_keys: true or scale the step"
            )
        return None

    def canonical(self) -> Algorithm:
        """Gradient descent at one write."""
        return Gd() if self.writes == 1 else self
