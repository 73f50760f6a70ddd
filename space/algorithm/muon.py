"""Muon: every step has the direction of the gradients and the same length in all singular directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from miras_search.space.algorithm.omega import check_window, shares
from miras_search.space.algorithm.protocol import ALGORITHM, Algorithm, Descent, Moments, Pairs, Writes, needed
from miras_search.space.fields import require, setting
from miras_search.space.gates import MOMENTUM, Gate, fixed, momentum_problem
from miras_search.space.lazy import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from miras_search.space.bias import Bias
    from miras_search.space.memory import Memory
else:
    torch = LazyModule("torch")

QUINTIC = (3.4445, -4.7750, 2.0315)  # Muon's: singular values from 0.003 up to 1 reach [0.68, 1.13] in five steps


def orthogonalised(g: Tensor, iterations: int, epsilon: float) -> Tensor:
    """NS_n(G) [.., rows, cols]: U p(s) V^T of the singular values s of G / |G|_F, p the quintic applied n times.

    The norm is sqrt(|G|_F^2 + epsilon^2), so that G = 0 has a change, 0, and a finite gradient.
    """
    a, b, c = QUINTIC
    tall = g.shape[-2] > g.shape[-1]
    x = g.transpose(-1, -2) if tall else g  # the product below is of the shorter side
    x = x / torch.sqrt(x.square().sum((-2, -1), keepdim=True) + epsilon**2)
    for _ in range(iterations):
        square = x @ x.transpose(-1, -2)
        x = a * x + (b * square + c * square @ square) @ x
    return x.transpose(-1, -2) if tall else x


@ALGORITHM.register
@final
@dataclass(frozen=True, slots=True)
class Muon(Descent):
    """Momentum made nearly orthogonal by Newton-Schulz steps; with a window of several tokens it is ATLAS."""

    name: ClassVar[str] = "muon"
    equation: ClassVar[str] = (
        "S_t = b_t S_{t-1} + G_t;  Z_t = a_t Z_{t-1} - e_t NS_n(S_t);  "
        "G_t = sum_{i=t-c+1..t} s_{t,i} grad l(W'; k_i, v_i)"
    )
    source: ClassVar[str] = "ATLAS (2505.23735); Muon (Jordan et al. 2024)"

    momentum: Gate = setting(MOMENTUM, "the share of the past gradients that stays")
    iterations: int = setting(5, "n, Newton-Schulz steps")
    window: int = setting(1, "c, the tokens whose pairs each step takes, its own included", named=True)
    share: Gate = setting(fixed(1.0), "the weight of each pair in the window")
    epsilon: float = setting(1e-7, "smoothing of the norm that S is divided by")

    def __post_init__(self) -> None:
        problem = momentum_problem(self.momentum)
        require(problem is None, "momentum", problem or "")
        require(1 <= self.iterations <= 20, "iterations", f"{self.iterations} is not between 1 and 20")
        check_window(self.window, self.share)
        require(self.epsilon > 0, "epsilon", f"{self.epsilon:g} must be positive: a gradient may be 0")

    @property
    def linear(self) -> bool:
        """Newton-Schulz is not."""
        return False

    @property
    def has_momentum(self) -> bool:
        """Unless the gate is the constant 0."""
        return not self.momentum.is_zero

    def repeats(self, slot: str) -> int:
        """A share for every pair."""
        return self.window if slot == "share" else 1

    def assemble(self, pairs: Pairs, gates: Mapping[str, Tensor], bias: Bias) -> Writes:
        """One write of the window."""
        k, v, step = (x.flatten(1, 2) for x in (*pairs, gates["step"]))
        return Writes(k, v, step, share=shares(gates, self.share))

    def moved(self, moments: Moments, gradient: Tensor, step: Tensor, momentum: Tensor | None) -> Moments:
        """S = b S + g, if there is momentum."""
        return (needed(momentum) * moments[0] + gradient,) if self.has_momentum else ()

    def change(self, moments: Moments, gradient: Tensor, step: Tensor) -> Tensor:
        """-e NS_n(S)."""
        pushed = moments[0] if self.has_momentum else gradient
        return -step * orthogonalised(pushed, self.iterations, self.epsilon)

    def problem(self, memory: Memory, bias: Bias) -> str | None:
        """Diagonal weights have no singular directions that could be told apart from their entries."""
        if any(layer.diagonal for layer in memory.layers(2, 2)):
            return (
                "muon makes matrices orthogonal, and this memory's weights are a vector: use adam for signs of slopes"
            )
        return None

    def canonical(self) -> Algorithm:
        """Itself."""
        return self
