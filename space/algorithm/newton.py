"""The inner loss minimised exactly at every token, by Newton's one step to the bottom of a parabola.

A linear memory under the squared error is a ridge regression, and its statistics are two matrices a head: H of keys
with keys, G of keys with values. B batch, T tokens, H heads, K key and V value dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from miras_search.space.algorithm.protocol import ALGORITHM, Algorithm, Descent, decay_matrix
from miras_search.space.bias import L2
from miras_search.space.fields import require, setting
from miras_search.space.gates import Gate, Scope
from miras_search.space.lazy import LazyModule
from miras_search.space.solution import Solution, Statistics

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from miras_search.space.bias import Bias
    from miras_search.space.control import Inputs
    from miras_search.space.memory import Memory
else:
    torch = LazyModule("torch")

CHUNK = 32  # tokens whose H is formed at once, [B,H,32,K,K]; of 16, 32 and 64 the fastest on a CPU


@ALGORITHM.register
@final
@dataclass(frozen=True, slots=True)
class Newton(Descent):
    """The weights that fit all pairs best: sum_s (decay since s) e_s 1/2 |k_s W - v_s|^2 + 1/2 sum_k l_k |W_k|^2."""

    name: ClassVar[str] = "newton"
    equation: ClassVar[str] = (
        "H_t = a_t H_{t-1} + e_t k_t^T k_t;  G_t = a_t G_{t-1} + e_t k_t^T v_t;  W_t = (H_t + diag(l))^-1 G_t"
    )
    source: ClassVar[str] = "Mesa layer (2309.05858), MesaNet (2506.05233); the memory starts at 0"

    ridge: float = setting(1.0, "l at the start; trained, one a key channel, as least + softplus of a parameter")
    least: float = setting(0.25, "l never falls below it (MesaNet has 0.25); nothing else keeps the solve stable")
    iterations: int | None = setting(
        None, "steps of conjugate gradients from 0, with which MesaNet solves for the read (30); none: exactly"
    )

    def __post_init__(self) -> None:
        require(self.least >= 0, "least", f"{self.least:g} must not be negative")
        require(
            self.least < self.ridge < float("inf"), "ridge", f"{self.ridge:g} must lie above least = {self.least:g}"
        )
        known = self.iterations is None or 1 <= self.iterations <= 256
        require(known, "iterations", f"{self.iterations} is not between 1 and 256, or none")

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
        """A pair fades as a whole: H has no channel that could fade alone and stay a sum over pairs."""
        return ("head",)

    def static(self, key_dim: int, value_dim: int) -> dict[str, tuple[tuple[int, ...], float]]:
        """The ridge's parameter [H,K]."""
        start = Gate(source="learned", squash="softplus", value=self.ridge - self.least).start
        return {"ridge": ((key_dim,), start)}

    def solution(self, memory: Memory) -> Solution | None:
        """Ridge regression."""
        return RidgeRegression(self.least, self.iterations)

    def problem(self, memory: Memory, bias: Bias) -> str | None:
        """It needs a linear map and the squared error."""
        if not memory.bare:
            return "only a linear map has its minimiser in closed form: set memory: matrix without residual and norm"
        if bias.canonical() != L2():
            return "only the squared error has a linear minimiser: set bias: l2 (half: a factor belongs into the step)"
        return None

    def canonical(self) -> Algorithm:
        """Itself."""
        return self


@final
@dataclass(frozen=True, slots=True)
class RidgeRegression:
    """Decayed, weighted ridge regression of values on keys. State: H [B,H,K,K] and G [B,H,K,V]."""

    least: float
    iterations: int | None

    def initial(self, inputs: Inputs) -> Statistics:
        """Zeros."""
        batch, _, heads, keys = inputs.k.shape
        values = inputs.v.shape[-1]
        return {"H": inputs.k.new_zeros(batch, heads, keys, keys), "G": inputs.k.new_zeros(batch, heads, keys, values)}

    def absorb(self, state: Statistics, token: Inputs, static: Mapping[str, Tensor]) -> Statistics:
        """One pair added to what keep has faded."""
        keep = token.log_keep[:, 0].exp()[..., None, None]
        k, v = token.k[:, 0], token.v[:, 0].unsqueeze(-2)
        written = (token.step[:, 0].unsqueeze(-1) * k).unsqueeze(-1)
        return {"H": keep * state["H"] + written * k.unsqueeze(-2), "G": keep * state["G"] + written * v}

    def read(self, state: Statistics, q: Tensor, static: Mapping[str, Tensor]) -> Tensor:
        """q (H + diag(l))^-1 G."""
        q, ridge = q.transpose(1, 2), self._ridge(static)
        if self.iterations is None:
            x = _exact(state["H"].unsqueeze(2), ridge, q)
        else:
            x = conjugate_gradients(lambda p: p @ state["H"] + ridge * p, q, self.iterations)
        return (x @ state["G"]).transpose(1, 2)

    def whole(self, state: Statistics, inputs: Inputs, static: Mapping[str, Tensor]) -> tuple[Tensor, Statistics]:
        """Outputs [B,T,H,V] and the statistics after all tokens, chunk by chunk."""
        outputs = []
        for first in range(0, inputs.q.shape[1], CHUNK):
            y, state = self._part(state, inputs.tokens(first, first + CHUNK), static)
            outputs.append(y)
        return torch.cat(outputs, 1), state

    def _part(self, state: Statistics, inputs: Inputs, static: Mapping[str, Tensor]) -> tuple[Tensor, Statistics]:
        """One chunk: reads see H_t = A_t H_0 + sum_s P_ts k_s^T k_s, and G alike."""
        q, k, v, log_keep, step = (
            x.transpose(1, 2) for x in (inputs.q, inputs.k, inputs.v, inputs.log_keep, inputs.step)
        )
        keep = log_keep.cumsum(-1).exp().unsqueeze(-1)  # A [B,H,C,1]
        shares = decay_matrix(log_keep) * step.unsqueeze(-2)  # P [B,H,C,C]

        def product(x: Tensor, matrix: Tensor, rows: Tensor) -> Tensor:  # x_t (A_t M_0 + sum_s P_ts k_s^T row_s)
            return keep * (x @ matrix) + (shares * (x @ k.transpose(-1, -2))) @ rows

        ridge = self._ridge(static)
        if self.iterations is None:
            pairs = (k.unsqueeze(-1) * k.unsqueeze(-2)).flatten(-2)
            h = keep.unsqueeze(-1) * state["H"].unsqueeze(2) + (shares @ pairs).view(*q.shape, q.shape[-1])
            x = _exact(h, ridge, q)
        else:
            x = conjugate_gradients(lambda p: product(p, state["H"], k) + ridge * p, q, self.iterations)
        left = keep[..., -1:, :]
        written = (shares[..., -1, :].unsqueeze(-1) * k).transpose(-1, -2)
        after = {"H": left * state["H"] + written @ k, "G": left * state["G"] + written @ v}
        return product(x, state["G"], v).transpose(1, 2), after

    def _ridge(self, static: Mapping[str, Tensor]) -> Tensor:
        """l [H,1,K]."""
        return (self.least + torch.nn.functional.softplus(static["ridge"])).unsqueeze(-2)


def _exact(h: Tensor, ridge: Tensor, q: Tensor) -> Tensor:
    """x_t with x_t (H_t + diag(l)) = q_t, for h [B,H,T,K,K] and q [B,H,T,K].

    A factorisation that fails, in a training that diverges, gives NaN and no exception: the divergence is a result.
    """
    x: Tensor = torch.linalg.solve_ex(h + torch.diag_embed(ridge), q.unsqueeze(-1)).result
    return x.squeeze(-1)


def conjugate_gradients(product: Callable[[Tensor], Tensor], q: Tensor, iterations: int) -> Tensor:
    """x with product(x) near q, for a symmetric positive definite product on the last axis.

    Where the residual is rounding already, nothing moves any more: its quotients would be noise with steep gradients.
    """
    x, residual, direction = torch.zeros_like(q), q, q
    square = q.square().sum(-1, keepdim=True)
    enough = torch.finfo(q.dtype).eps ** 2 * square
    for _ in range(iterations):
        done = square <= enough
        image = product(direction)
        curvature = (direction * image).sum(-1, keepdim=True)
        length = torch.where(done, 0.0, square / torch.where(done, 1.0, curvature))
        x, residual = x + length * direction, residual - length * image
        after = residual.square().sum(-1, keepdim=True)
        direction = residual + torch.where(done, 0.0, after / torch.where(done, 1.0, square)) * direction
        square = after
    return x
