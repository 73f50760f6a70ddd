"""Memory learning algorithm, axis 4: how the gradient of a token becomes a change of the memory.

The algorithms here are linear in the gradient, S_t = b_t S_{t-1} - e_t g_t and Z_t = a_t Z_{t-1} + S_t (without
momentum S_t = -e_t g_t), so a chunk unrolls to

    Z_t = A_t Z_0 + B_t S_0 - sum_{s<=t} P_ts g_s,    S_C = c_S S_0 - sum_s p_s g_s

with the coefficients below. A token makes `writes` writes, in order; keep fades the past before the first of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, final

from miras_search.space.fields import require, setting
from miras_search.space.gates import MOMENTUM, Gate
from miras_search.space.lazy import LazyModule
from miras_search.space.option import Axis, Facts

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")


class Coefficients(NamedTuple):
    """How a chunk of N writes unrolls; leading axes [..., N]."""

    keep: Tensor  # A [..., N]
    momentum: Tensor | None  # B [..., N]; None without momentum
    writes: Tensor  # P [..., N, N], lower triangular
    end_momentum: Tensor | None  # c_S [...]: what is left of S_0 at the end of the chunk
    end_writes: Tensor | None  # p [..., N]: the share of each gradient in S_C


class Algorithm(Facts, Protocol):
    """What the kernels need to know of an algorithm."""

    @property
    def writes(self) -> int:
        """Writes a token."""

    @property
    def own_keys(self) -> bool:
        """Whether each write has its own key and value (else all repeat the token's one pair)."""

    @property
    def has_momentum(self) -> bool:
        """Whether past gradients keep acting through S."""

    def coefficients(self, log_keep: Tensor | None, step: Tensor, momentum: Tensor | None) -> Coefficients:
        """The unrolled chunk, from gates [..., N] (keep in log space; None where everything is kept)."""

    def canonical(self) -> Algorithm:
        """The simplest spelling of the same function."""


ALGORITHM: Axis[Algorithm] = Axis("algorithm", "how a gradient becomes a change of the memory")


def decay_matrix(log_gate: Tensor) -> Tensor:
    """D_ts = prod_{i=s+1..t} gate_i for s <= t, else 0; [..., N] -> [..., N, N].

    Masked before the exponential: a 0 times an overflowed exp would be NaN in the backward pass.
    """
    total = log_gate.cumsum(-1)
    difference = total.unsqueeze(-1) - total.unsqueeze(-2)
    n = log_gate.shape[-1]
    lower = torch.ones(n, n, dtype=torch.bool, device=log_gate.device).tril()
    return torch.exp(difference.masked_fill(~lower, float("-inf")))


def _descent(log_keep: Tensor | None, step: Tensor) -> Coefficients:
    """P = D diag(e): a branch of its own, since momentum 0 in log space would be -inf - -inf."""
    if log_keep is None:
        writes = step.unsqueeze(-2).expand(*step.shape, step.shape[-1]).tril()
        return Coefficients(torch.ones_like(step), None, writes, None, None)
    return Coefficients(torch.exp(log_keep.cumsum(-1)), None, decay_matrix(log_keep) * step.unsqueeze(-2), None, None)


@ALGORITHM.register
@final
@dataclass(frozen=True, slots=True)
class Gd:
    """One gradient step a token."""

    name: ClassVar[str] = "gd"
    equation: ClassVar[str] = "Z_t = a_t Z_{t-1} - e_t g_t"
    source: ClassVar[str] = "Miras, Eq. 5"
    writes: ClassVar[int] = 1
    own_keys: ClassVar[bool] = True
    has_momentum: ClassVar[bool] = False

    def coefficients(self, log_keep: Tensor | None, step: Tensor, momentum: Tensor | None) -> Coefficients:
        """A = cumprod(a), P = D diag(e)."""
        return _descent(log_keep, step)

    def canonical(self) -> Algorithm:
        """Itself."""
        return self


@ALGORITHM.register
@final
@dataclass(frozen=True, slots=True)
class Momentum:
    """Gradient descent with momentum: surprise that lasts beyond its token."""

    name: ClassVar[str] = "momentum"
    equation: ClassVar[str] = "S_t = b_t S_{t-1} - e_t g_t;  Z_t = a_t Z_{t-1} + S_t"
    source: ClassVar[str] = "Titans, Eq. 13-14 (Miras' Table 1 has the sign of S slipped)"
    writes: ClassVar[int] = 1
    own_keys: ClassVar[bool] = True
    has_momentum: ClassVar[bool] = True

    momentum: Gate = setting(MOMENTUM, "the share of the past surprise that stays")

    def __post_init__(self) -> None:
        fixed_ok = self.momentum.source != "fixed" or 0 <= self.momentum.value < 1
        require(fixed_ok, "momentum", "a fixed momentum lies in [0, 1)")
        require(self.momentum.squash == "sigmoid", "momentum", "momentum is squashed by a sigmoid")
        reach = self.momentum.reach
        require(reach <= 1, "momentum", f"momentum lies in [0, 1): scale {reach:g} lets it reach {reach:g}")

    def coefficients(self, log_keep: Tensor | None, step: Tensor, momentum: Tensor | None) -> Coefficients:
        """P = D M diag(e), B = D cumprod(b)."""
        if momentum is None:
            raise ValueError("the momentum algorithm needs momentum gates")
        log_keep = torch.zeros_like(step) if log_keep is None else log_keep
        keep, decay = torch.exp(log_keep.cumsum(-1)), decay_matrix(log_keep)
        # momentum 0 is a legal gate: a floor far below float32's resolution keeps its logarithm finite
        log_momentum = torch.log(momentum.clamp(min=1e-13))
        surprise, remaining = decay_matrix(log_momentum), torch.exp(log_momentum.cumsum(-1))
        return Coefficients(
            keep=keep,
            momentum=(decay @ remaining.unsqueeze(-1)).squeeze(-1),
            writes=(decay @ surprise) * step.unsqueeze(-2),
            end_momentum=remaining[..., -1],
            end_writes=surprise[..., -1, :] * step,
        )

    def canonical(self) -> Algorithm:
        """Plain descent when the momentum is fixed at 0."""
        return Gd() if self.momentum.source == "fixed" and self.momentum.value == 0 else self


@ALGORITHM.register
@final
@dataclass(frozen=True, slots=True)
class MultiStep:
    """Several gradient steps a token, each with its own key, value and step (DeltaProduct), or all on one pair."""

    name: ClassVar[str] = "multi_step"
    equation: ClassVar[str] = "Z_{t,0} = a_t Z_{t-1};  Z_{t,j} = Z_{t,j-1} - e_{t,j} g_{t,j},  j = 1..n"
    source: ClassVar[str] = "DeltaProduct (2025); Miras' Table 1 prints the sum garbled"
    has_momentum: ClassVar[bool] = False

    writes: int = setting(2, "steps a token", named=True)
    own_keys: bool = setting(True, "project a key and a value for every step; false repeats the token's one pair")

    def __post_init__(self) -> None:
        require(1 <= self.writes <= 8, "writes", f"{self.writes} is not between 1 and 8")

    def coefficients(self, log_keep: Tensor | None, step: Tensor, momentum: Tensor | None) -> Coefficients:
        """As gradient descent over the writes; keep is 1 but for a token's first write."""
        return _descent(log_keep, step)

    def canonical(self) -> Algorithm:
        """Gradient descent at one write."""
        return Gd() if self.writes == 1 else self
