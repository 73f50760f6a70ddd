"""What the kernels need to know of a memory learning algorithm.

A linear algorithm, S_t = b_t S_{t-1} - e_t g_t and Z_t = a_t Z_{t-1} + S_t (without momentum S_t = -e_t g_t), unrolls
over a chunk to

    Z_t = A_t Z_0 + B_t S_0 - sum_{s<=t} P_ts g_s,    S_C = c_S S_0 - sum_s p_s g_s

with the coefficients below. Others give only `change`, and are run write by write. A token makes `writes` writes, in
order; keep fades the past before the first of them. Legend: B batch, T tokens, N = T * writes, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from miras_search.space.gates import Gate, Scope, effective
from miras_search.space.lazy import LazyModule
from miras_search.space.option import Axis, Facts

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from miras_search.space.bias import Bias
    from miras_search.space.memory import Memory
    from miras_search.space.solution import Solution
else:
    torch = LazyModule("torch")

Moments = tuple["Tensor", ...]


class Coefficients(NamedTuple):
    """How a chunk of N writes unrolls; leading axes [..., N]."""

    keep: Tensor | None  # A [..., N]; None where everything is kept
    momentum: Tensor | None  # B [..., N]; None without momentum
    writes: Tensor  # P [..., N, N], lower triangular
    end_momentum: Tensor | None  # c_S [...]: what is left of S_0 at the end of the chunk
    end_writes: Tensor | None  # p [..., N]: the share of each gradient in S_C


class Pairs(NamedTuple):
    """What a layer projects for every token: keys [B,T,keys,H,K], values [B,T,values,H,V]."""

    k: Tensor
    v: Tensor


class Writes(NamedTuple):
    """A token's writes in order: the weights move by -step (write key)^T u, with u taken at the read key."""

    k: Tensor  # read keys [B,N,H,K]
    v: Tensor  # [B,N,H,V]
    step: Tensor  # [B,N,H], or [B,N,H,C] by channel
    w: Tensor | None = None  # write keys [B,N,H,K] where they differ from the read keys
    share: Tensor | None = None  # [B,T,H,window] weight of each pair in a window, oldest first


class Algorithm(Facts, Protocol):
    """What the kernels need to know of an algorithm. `Descent` has the answers of a plain one-write algorithm."""

    @property
    def writes(self) -> int:
        """Writes a token, one after the other."""

    @property
    def keys(self) -> int:
        """Keys projected a token."""

    @property
    def values(self) -> int:
        """Values projected a token."""

    @property
    def window(self) -> int:
        """Tokens whose pairs each write takes together, the current one included; 1: only its own."""

    @property
    def linear(self) -> bool:
        """Whether the change is linear in the gradients, so that a chunk has coefficients."""

    @property
    def has_momentum(self) -> bool:
        """Whether past gradients keep acting: there are moments, and a momentum gate."""

    @property
    def splits_keys(self) -> bool:
        """Whether write keys differ from read keys, which only a bare matrix can hold."""

    @property
    def keep_scopes(self) -> tuple[Scope, ...]:
        """What the keep gate may have values for."""

    @property
    def step_scopes(self) -> tuple[Scope, ...]:
        """What the step, as the kernels are given it, may have values for."""

    @property
    def proximal(self) -> bool:
        """Whether a write minimises the loss itself, not its linearisation; true only of a gradient at the faded
        memory.
        """

    def repeats(self, slot: str) -> int:
        """Values a token of the gate in a slot, besides its channels."""

    def step_scope(self, step: Gate) -> Scope:
        """What has a value of its own in `Writes.step`."""

    def assemble(self, pairs: Pairs, gates: Mapping[str, Tensor], bias: Bias) -> Writes:
        """The writes, from projections and gates (step [B,T,steps,H,...], own gates by field name [B,T,H,...])."""

    def moments(self, weights: Tensor) -> Moments:
        """Accumulators of past gradients for a layer's weights [B,H,rows,cols], before the first token."""

    def moved(self, moments: Moments, gradient: Tensor, step: Tensor, momentum: Tensor | None) -> Moments:
        """The moments after one gradient; gates broadcast over [B,H,rows,cols]."""

    def change(self, moments: Moments, gradient: Tensor, step: Tensor) -> Tensor:
        """What a gradient adds to the weights once the moments have moved, of any number of writes [...,rows,cols]."""

    def coefficients(self, log_keep: Tensor | None, step: Tensor, momentum: Tensor | None) -> Coefficients:
        """The unrolled chunk, from gates [..., N] (keep in log space; None where everything is kept)."""

    def static(self, key_dim: int, value_dim: int) -> dict[str, tuple[tuple[int, ...], float]]:
        """Parameters a head that only the outer loop trains: shape and starting value by name."""

    def solution(self, memory: Memory) -> Solution | None:
        """The memory's minimiser in closed form, for algorithms that do not descend."""

    def problem(self, memory: Memory, bias: Bias) -> str | None:
        """Why it cannot run with this memory and bias, or None."""

    def canonical(self) -> Algorithm:
        """The simplest spelling of the same function."""


ALGORITHM: Axis[Algorithm] = Axis("algorithm", "how a gradient becomes a change of the memory")


class Descent:
    """The answers of an algorithm that makes one plain write a token; a class of its own overrides what differs."""

    __slots__ = ()

    @property
    def writes(self) -> int:
        """One."""
        return 1

    @property
    def steps(self) -> int:
        """One."""
        return 1

    @property
    def keys(self) -> int:
        """One."""
        return 1

    @property
    def values(self) -> int:
        """One."""
        return 1

    @property
    def window(self) -> int:
        """The token's own pair."""
        return 1

    @property
    def linear(self) -> bool:
        """It is."""
        return True

    @property
    def has_momentum(self) -> bool:
        """None."""
        return False

    @property
    def splits_keys(self) -> bool:
        """They are the same."""
        return False

    @property
    def keep_scopes(self) -> tuple[Scope, ...]:
        """All."""
        return ("head", "key", "value", "key_value")

    @property
    def step_scopes(self) -> tuple[Scope, ...]:
        """All."""
        return ("head", "key", "value", "key_value")

    @property
    def proximal(self) -> bool:
        """It follows the gradient."""
        return False

    def repeats(self, slot: str) -> int:
        """Steps where there are several."""
        return self.steps if slot == "step" else 1

    def step_scope(self, step: Gate) -> Scope:
        """The step gate's own."""
        return effective(step)

    def assemble(self, pairs: Pairs, gates: Mapping[str, Tensor], bias: Bias) -> Writes:
        """One write a pair."""
        return Writes(pairs.k.flatten(1, 2), pairs.v.flatten(1, 2), gates["step"].flatten(1, 2))

    def moments(self, weights: Tensor) -> Moments:
        """Zeros, where there is momentum."""
        return (torch.zeros_like(weights),) if self.has_momentum else ()

    def moved(self, moments: Moments, gradient: Tensor, step: Tensor, momentum: Tensor | None) -> Moments:
        """There are none."""
        return ()

    def change(self, moments: Moments, gradient: Tensor, step: Tensor) -> Tensor:
        """-e g."""
        return -step * gradient

    def coefficients(self, log_keep: Tensor | None, step: Tensor, momentum: Tensor | None) -> Coefficients:
        """A = cumprod(a), P = D diag(e)."""
        if log_keep is None:
            writes = step.unsqueeze(-2).expand(*step.shape, step.shape[-1]).tril()  # vmap has no rule for it in place
            return Coefficients(None, None, writes, None, None)
        writes = decay_matrix(log_keep) * step.unsqueeze(-2)
        return Coefficients(torch.exp(log_keep.cumsum(-1)), None, writes, None, None)

    def static(self, key_dim: int, value_dim: int) -> dict[str, tuple[tuple[int, ...], float]]:
        """None."""
        return {}

    def solution(self, memory: Memory) -> Solution | None:
        """It descends."""
        return None

    def problem(self, memory: Memory, bias: Bias) -> str | None:
        """It runs with all."""
        return None


def decay_matrix(log_gate: Tensor) -> Tensor:
    """D_ts = prod_{i=s+1..t} gate_i for s <= t, else 0; [..., N] -> [..., N, N].

    Masked before the exponential: a 0 times an overflowed exp would be NaN in the backward pass.
    """
    total = log_gate.cumsum(-1)
    difference = total.unsqueeze(-1) - total.unsqueeze(-2)
    n = log_gate.shape[-1]
    lower = torch.ones(n, n, dtype=torch.bool, device=log_gate.device).tril()
    return torch.exp(difference.masked_fill(~lower, float("-inf")))


def running_products(gate: Tensor) -> Tensor:
    """M_ts = prod_{i=s+1..t} gate_i for s <= t, else 0; [..., N] -> [..., N, N].

    As `decay_matrix`, but without logarithms, for gates that may be 0: products over doubling spans, whose gradient is
    right at 0 too.
    """
    n = gate.shape[-1]
    lower = torch.ones(n, n, dtype=torch.bool, device=gate.device).tril()
    factors = torch.where(lower.tril(-1), gate.unsqueeze(-1), 1.0)
    span = 1
    while span < n:
        earlier = torch.cat([torch.ones_like(factors[..., :span, :]), factors[..., :-span, :]], -2)
        factors, span = factors * earlier, 2 * span
    return factors.masked_fill(~lower, 0.0)


def surprise_coefficients(log_keep: Tensor | None, step: Tensor, momentum: Tensor | None) -> Coefficients:
    """P = D M diag(e), B = D cumprod(b)."""
    momentum = needed(momentum)
    keep = None if log_keep is None else torch.exp(log_keep.cumsum(-1))
    decay = decay_matrix(torch.zeros_like(step) if log_keep is None else log_keep)
    surprise = running_products(momentum)
    remaining = surprise[..., :, 0] * momentum[..., :1]
    return Coefficients(
        keep=keep,
        momentum=(decay @ remaining.unsqueeze(-1)).squeeze(-1),
        writes=(decay @ surprise) * step.unsqueeze(-2),
        end_momentum=remaining[..., -1],
        end_writes=surprise[..., -1, :] * step,
    )


def surprise(moments: Moments, gradient: Tensor, step: Tensor, momentum: Tensor | None) -> Moments:
    """S = b S - e g, which is the change too."""
    return (needed(momentum) * moments[0] - step * gradient,)


def needed(momentum: Tensor | None) -> Tensor:
    """The momentum gates. Raises `ValueError` where there are none."""
    if momentum is None:
        raise ValueError("an algorithm with momentum needs momentum gates")
    return momentum
