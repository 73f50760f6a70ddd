"""Gradient descent, plain and with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from miras_search.space.algorithm.protocol import (
    ALGORITHM,
    Algorithm,
    Coefficients,
    Descent,
    Moments,
    surprise,
    surprise_coefficients,
)
from miras_search.space.fields import require, setting
from miras_search.space.gates import MOMENTUM, Gate, momentum_problem

if TYPE_CHECKING:
    from torch import Tensor


@ALGORITHM.register
@final
@dataclass(frozen=True, slots=True)
class Gd(Descent):
    """One gradient step a token."""

    name: ClassVar[str] = "gd"
    equation: ClassVar[str] = "Z_t = a_t Z_{t-1} - e_t g_t"
    source: ClassVar[str] = "Miras, Eq. 5"

    def canonical(self) -> Algorithm:
        """Itself."""
        return self


@ALGORITHM.register
@final
@dataclass(frozen=True, slots=True)
class Momentum(Descent):
    """Gradient descent with momentum: surprise that lasts beyond its token."""

    name: ClassVar[str] = "momentum"
    equation: ClassVar[str] = "S_t = b_t S_{t-1} - e_t g_t;  Z_t = a_t Z_{t-1} + S_t"
    source: ClassVar[str] = "Titans, Eq. 13-14 (Miras' Table 1 has the sign of S slipped)"

    momentum: Gate = setting(MOMENTUM, "the share of the past surprise that stays")

    def __post_init__(self) -> None:
        problem = momentum_problem(self.momentum)
        require(problem is None, "momentum", problem or "")

    @property
    def has_momentum(self) -> bool:
        """It is all of it."""
        return True

    def moved(self, moments: Moments, gradient: Tensor, step: Tensor, momentum: Tensor | None) -> Moments:
        """S = b S - e g."""
        return surprise(moments, gradient, step, momentum)

    def change(self, moments: Moments, gradient: Tensor, step: Tensor) -> Tensor:
        """S."""
        return moments[0]

    def coefficients(self, log_keep: Tensor | None, step: Tensor, momentum: Tensor | None) -> Coefficients:
        """P = D M diag(e), B = D cumprod(b)."""
        return surprise_coefficients(log_keep, step, momentum)

    def canonical(self) -> Algorithm:
        """Plain descent when the momentum is fixed at 0."""
        return Gd() if self.momentum.is_zero else self
