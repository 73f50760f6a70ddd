"""No descent at all: the answer of the pairs themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from miras_search.space.algorithm.protocol import ALGORITHM, Algorithm, Descent
from miras_search.space.bias import L2
from miras_search.space.gates import Scope

if TYPE_CHECKING:
    from miras_search.space.bias import Bias
    from miras_search.space.memory import Memory
    from miras_search.space.solution import Solution


@ALGORITHM.register
@final
@dataclass(frozen=True, slots=True)
class Nonparametric(Descent):
    """The pairs are kept and answer themselves; the step weighs a pair, which any constant leaves as it is."""

    name: ClassVar[str] = "nonparametric"
    equation: ClassVar[str] = "M_t = M_{t-1} + {(k_t, v_t)};  y_t = argmin_y sum_s w_ts 1/2 |y - v_s|^2"
    source: ClassVar[str] = "Transformer (1706.03762) in Miras' Table 1; Nadaraya 1964, Watson 1964"

    @property
    def linear(self) -> bool:
        """There are no gradients."""
        return False

    @property
    def step_scopes(self) -> tuple[Scope, ...]:
        """A pair has one weight."""
        return ("head",)

    @property
    def keep_scopes(self) -> tuple[Scope, ...]:
        """A pair fades as a whole."""
        return ("head",)

    def solution(self, memory: Memory) -> Solution | None:
        """The memory's own."""
        return memory.solution()

    def problem(self, memory: Memory, bias: Bias) -> str | None:
        """It needs a memory of pairs, and the bias whose minimiser is the mean."""
        if not memory.is_kernel:
            return "it keeps the pairs themselves and no weights: set memory: attention"
        if bias.canonical() != L2():
            return "a weighted mean of values minimises the squared error only: set bias: l2 (half: a factor cancels)"
        return None

    def canonical(self) -> Algorithm:
        """Itself."""
        return self
