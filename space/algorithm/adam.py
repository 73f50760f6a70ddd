"""Adam as the inner optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from miras_search.space.algorithm.protocol import ALGORITHM, Algorithm, Descent, Moments, needed
from miras_search.space.fields import require, setting
from miras_search.space.gates import MOMENTUM, Gate, momentum_problem
from miras_search.space.lazy import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

TINY = 1e-6  # a momentum that rounds to 1 has taken nothing in, and 0 is divided by this


@ALGORITHM.register
@final
@dataclass(frozen=True, slots=True)
class Adam(Descent):
    """Running means of the gradients and of their squares: every weight moves about a step, however flat the loss.

    The means' weights are kept as running sums n, m of the shares that entered (1 - b^t for a constant b), so that
    b may depend on the data. Epsilon stands inside the root, where the outer gradient stays finite at a slope of 0;
    that gradient is up to 1 / epsilon, hence a default above the 1e-8 of outer loops.
    """

    name: ClassVar[str] = "adam"
    equation: ClassVar[str] = (
        "m_t = b_t m_{t-1} + (1 - b_t) g_t;  v_t = c v_{t-1} + (1 - c) g_t^2;  "
        "Z_t = a_t Z_{t-1} - e_t m^ / sqrt(v^ + eps^2),  m^ = m_t / (1 - prod b), v^ = v_t / (1 - c^t)"
    )
    source: ClassVar[str] = "Kingma and Ba (1412.6980) as a memory's algorithm; not in Miras"

    momentum: Gate = setting(MOMENTUM, "b, the share of the mean gradient that stays")
    second: float = setting(0.95, "c, the share of the mean squared gradient that stays", named=True)
    epsilon: float = setting(1e-3, "slopes below it move a weight by less than a step")
    correction: bool = setting(True, "divide the means by the weight that entered them")

    def __post_init__(self) -> None:
        problem = momentum_problem(self.momentum)
        require(problem is None, "momentum", problem or "")
        by_head = self.momentum.source == "fixed" or self.momentum.scope == "head"
        require(by_head, "momentum", f"adam knows its momentum by head only, not by {self.momentum.scope}")
        require(0 <= self.second < 1, "second", f"{self.second:g} does not lie in [0, 1)")
        require(self.epsilon > 0, "epsilon", f"{self.epsilon:g} must be positive: a slope may be 0")

    @property
    def linear(self) -> bool:
        """It divides by the slopes."""
        return False

    @property
    def has_momentum(self) -> bool:
        """Always, of gate 0 too."""
        return True

    def moments(self, weights: Tensor) -> Moments:
        """m and v of the weights' shape; with correction the weights that entered them [B,H,1,1]."""
        zeros, count = torch.zeros_like(weights), torch.zeros_like(weights[..., :1, :1])
        return (zeros, zeros, count, count) if self.correction else (zeros, zeros)

    def moved(self, moments: Moments, gradient: Tensor, step: Tensor, momentum: Tensor | None) -> Moments:
        """m and v, and with correction the weights that have entered them."""
        first, second = needed(momentum), self.second
        m = first * moments[0] + (1 - first) * gradient
        v = second * moments[1] + (1 - second) * gradient.square()
        if not self.correction:
            return m, v
        return m, v, first * moments[2] + (1 - first), second * moments[3] + (1 - second)

    def change(self, moments: Moments, gradient: Tensor, step: Tensor) -> Tensor:
        """-e m^ / sqrt(v^ + eps^2)."""
        m, v, *entered = moments
        if entered:
            m, v = m / entered[0].clamp(min=TINY), v / entered[1]
        return -step * m / torch.sqrt(v + self.epsilon**2)

    def canonical(self) -> Algorithm:
        """Itself."""
        return self
