"""Retention gate, axis 3: how much of the old memory a write leaves standing.

All gates here are dual: an accumulator Z follows the linear rule Z_t = a_t Z_{t-1} - e_t g_t and the weights in force
are W_t = link(Z_t). For the L2 gate the link is the identity; for the KL gate (Memora) it is a softmax and Z holds
logits: log W = Z - lse(Z) + log c, and the constant per slice cancels under the softmax, so Eq. 27 in log W and this
rule in Z are the same function while the keep gate is constant inside a slice. Z, W `[B,H,K,V]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, final

from miras_search.space.fields import require, setting
from miras_search.space.gates import KEEP, Gate, fixed, keep_problem
from miras_search.space.lazy import LazyModule
from miras_search.space.option import Axis, Facts

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")


class Retention(Facts, Protocol):
    """What the kernels need to know of a retention gate."""

    objective: ClassVar[str]  # what the gate minimises together with the bias; "" when it is a rule

    @property
    def identity(self) -> bool:
        """Whether link(Z) = Z."""

    @property
    def keep(self) -> Gate:
        """The gate on the old memory."""

    def start(self, weights: Tensor) -> Tensor:
        """The accumulator whose link is near the given starting weights (used at initialisation only)."""

    def link(self, dual: Tensor) -> Tensor:
        """The weights in force, from the accumulator."""

    def canonical(self) -> Retention:
        """The simplest spelling of the same function."""


RETENTION: Axis[Retention] = Axis("retention", "how much of the old memory a write leaves standing")


def _check_keep(keep: Gate) -> None:
    problem = keep_problem(keep)
    require(problem is None, "keep", problem or "")


@RETENTION.register
@final
@dataclass(frozen=True, slots=True)
class NoRetention:
    """Nothing is let go but what a write replaces."""

    name: ClassVar[str] = "none"
    equation: ClassVar[str] = "Z_t = Z_{t-1} - e_t g_t;  W = Z"
    source: ClassVar[str] = "Miras, Eq. 5"
    objective: ClassVar[str] = "<W - W', g> + 1/(2e) |W - W'|^2"
    identity: ClassVar[bool] = True

    @property
    def keep(self) -> Gate:
        """The constant 1."""
        return fixed(1.0)

    def start(self, weights: Tensor) -> Tensor:
        """The weights."""
        return weights

    def link(self, dual: Tensor) -> Tensor:
        """The identity."""
        return dual

    def canonical(self) -> Retention:
        """Itself."""
        return self


@RETENTION.register
@final
@dataclass(frozen=True, slots=True)
class L2Retention:
    """Weight decay of the memory, decoupled from the step: every token fades the past by its keep gate."""

    name: ClassVar[str] = "l2"
    equation: ClassVar[str] = "Z_t = a_t Z_{t-1} - e_t g_t;  W = Z"
    source: ClassVar[str] = "Miras, section 5.3 (Yaad's gate); Titans, Eq. 13"
    objective: ClassVar[str] = (
        "<W - W', g> + 1/(2t) |W - W'|^2 + 1/(2b) |W|^2, with a = b/(b+t), e = a t then decoupled"
    )
    identity: ClassVar[bool] = True

    keep: Gate = setting(KEEP, "the share of the old memory that stays")

    def __post_init__(self) -> None:
        _check_keep(self.keep)

    def start(self, weights: Tensor) -> Tensor:
        """The weights."""
        return weights

    def link(self, dual: Tensor) -> Tensor:
        """The identity."""
        return dual

    def canonical(self) -> Retention:
        """No retention when everything is kept."""
        return NoRetention() if self.keep.is_one else self


@RETENTION.register
@final
@dataclass(frozen=True, slots=True)
class KlRetention:
    """Weights on a simplex: the write competes for mass, and keep below 1 draws each slice to uniform."""

    name: ClassVar[str] = "kl"
    equation: ClassVar[str] = "Z_t = a_t Z_{t-1} - e_t g_t;  W = c softmax(Z) over each slice"
    source: ClassVar[str] = "Miras, Eq. 19-21 and 27 (Memora), in logits; c of Eq. 21 is a setting"
    objective: ClassVar[str] = "<W - W', g> + 1/n sum W log(W/W') + 1/b sum W log W on {W >= 0, slice sum = c}"
    identity: ClassVar[bool] = False

    keep: Gate = setting(KEEP, "the share of the old logits that stays")
    slice: Literal["column", "row", "whole"] = setting(
        "column", "what sums to c: one output's weights (column), one input's (row), or the whole matrix"
    )
    scale: float = setting(1.0, "c, the sum of a slice")

    def __post_init__(self) -> None:
        _check_keep(self.keep)
        require(self.scale > 0, "scale", f"{self.scale:g}: a slice sums to a positive number")

    def start(self, weights: Tensor) -> Tensor:
        """Logits equal to the weights: near uniform for small starting weights."""
        return weights

    def link(self, dual: Tensor) -> Tensor:
        """c softmax(Z) over the slice."""
        if self.slice == "whole":
            return self.scale * torch.softmax(dual.flatten(-2), -1).view(dual.shape)
        weights = torch.softmax(dual, -2 if self.slice == "column" else -1)
        return weights if self.scale == 1.0 else self.scale * weights

    def canonical(self) -> Retention:
        """Itself."""
        return self
