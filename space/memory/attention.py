"""The pairs themselves as memory: causal softmax attention.

Nothing is compressed. Given the weights of the pairs the read is the least squares answer, a weighted mean of the
values (Nadaraya and Watson's estimate): y_t = argmin_y sum_s w_ts |y - v_s|^2 / 2 with

    w_ts ~ e_s (prod_{i=s+1..t} a_i) exp(g q_t.k_s),   sum_s w_ts = 1

so the step e_s is the weight of a pair (0: it is not written) and keep fades old pairs, as in the Forgetting
Transformer. Where nothing is written yet, y = 0. Weights are kept as logarithms. B batch, T tokens, H heads, S pairs.

The start sqrt(K) of g was tried against others on MQAR (8 pairs, K = 16, unit q and k, 2 seeds): after 200 steps softer
starts (1/sqrt(K), 1) lead by a point of accuracy, sharper ones (10, 20) trail by two to four; after 600 steps on 6
pairs all recall everything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, final

from miras_search.space.fields import require, setting
from miras_search.space.lazy import LazyModule
from miras_search.space.memory.protocol import MEMORY, Layer, Lin, Memory, Network, Parameters, Static
from miras_search.space.solution import Solution, Statistics

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from miras_search.space.control import Inputs
else:
    torch = LazyModule("torch")

UNWRITTEN = -1e30  # log weight of a pair that is not there: finite, since -inf - -inf is NaN in the backward pass
QUERIES = 128  # tokens that look at the pairs at once


@MEMORY.register
@final
@dataclass(frozen=True, slots=True)
class Attention(Network):
    """All pairs, read by similarity: a Transformer's memory, whose state grows with every token unless windowed."""

    name: ClassVar[str] = "attention"
    equation: ClassVar[str] = "M = {(k_s, v_s)};  y_t = sum_s w_ts v_s,  w_ts ~ e_s (prod_{i>s} a_i) exp(g q_t.k_s)"
    source: ClassVar[str] = (
        "Transformer (1706.03762); Miras, Table 1; keep as in the Forgetting Transformer (2503.02130)"
    )

    window: int | None = setting(
        None, "the last tokens whose pairs are kept, the current one included; none: all of them"
    )
    scale: float | None = setting(
        None,
        "g, at the start if it is learned; none: sqrt(K), which is a Transformer's 1/sqrt(K) on q and k of length "
        "sqrt(K), so right for q and k of length 1 (model.qk_norm: l2)",
    )
    learned: bool = setting(True, "g is trained, one a head, as exp of a parameter; else it is fixed")
    lengths: Literal["unit", "free"] = setting(
        "unit", "of q and k, for which scale: none is right: 1; or as they come (model.qk_norm: none), g = 1/sqrt(K)"
    )

    def __post_init__(self) -> None:
        require(self.window is None or self.window >= 1, "window", f"{self.window} must be at least 1, or none")
        known = self.scale is None or 0 < self.scale < math.inf
        require(known, "scale", f"{self.scale} must be positive and finite, or none")

    @property
    def is_kernel(self) -> bool:
        """It is."""
        return True

    def layers(self, key_dim: int, value_dim: int) -> tuple[Layer, ...]:
        """None: nothing is compressed into weights."""
        return ()

    def static(self, key_dim: int, value_dim: int) -> Parameters:
        """The logarithm of the scale, [H], if it is learned."""
        return {"log_scale": ((), math.log(_usual(self, key_dim)))} if self.learned else {}

    def forward(self, x: Tensor, lin: Lin, static: Static) -> Tensor:
        """Raises `TypeError`: without weights there is nothing but the solution."""
        raise TypeError("attention has no weights to apply: it is read by its solution")

    def solution(self) -> Solution | None:
        """The mean of the values, weighted by similarity."""
        return KernelMean(self.window, self.scale, self.learned, self.lengths)

    def canonical(self) -> Memory:
        """With a scale of its own, lengths decide nothing."""
        return self if self.scale is None else replace(self, lengths="unit")


@final
@dataclass(frozen=True, slots=True)
class KernelMean:
    """The mean of the values that a query's similarity to their keys weighs.

    State: keys k [B,S,H,K], values v [B,S,H,V] and log weights [B,S,H], which hold step and keep.
    """

    window: int | None
    scale: float | None
    """None: as `lengths` has it."""
    learned: bool
    """The scale is exp of the static parameter `log_scale` [H]."""
    lengths: Literal["unit", "free"] = "unit"

    def initial(self, inputs: Inputs) -> Statistics:
        """No pairs."""
        k, v = inputs.k, inputs.v
        batch, _, heads, keys = k.shape
        return {
            "k": k.new_zeros(batch, 0, heads, keys),
            "v": v.new_zeros(batch, 0, heads, v.shape[-1]),
            "log_weight": k.new_zeros(batch, 0, heads),
        }

    def absorb(self, state: Statistics, token: Inputs, static: Mapping[str, Tensor]) -> Statistics:
        """The pair is added to those that keep has faded; the oldest leaves a full window."""
        faded = {**state, "log_weight": state["log_weight"] + token.log_keep}
        return self._cropped(_joined(faded, token, _log(token.step)))

    def read(self, state: Statistics, q: Tensor, static: Mapping[str, Tensor]) -> Tensor:
        """y [B,1,H,V] for a query [B,1,H,K]."""
        return self._mean(state, q, static)

    def whole(self, state: Statistics, inputs: Inputs, static: Mapping[str, Tensor]) -> tuple[Tensor, Statistics]:
        """Outputs [B,T,H,V] and the pairs after all tokens."""
        outputs = []
        for first in range(0, inputs.q.shape[1], QUERIES):
            y, state = self._part(state, inputs.tokens(first, first + QUERIES), static)
            outputs.append(y)
        return torch.cat(outputs, 1), state

    def _part(self, state: Statistics, inputs: Inputs, static: Mapping[str, Tensor]) -> tuple[Tensor, Statistics]:
        """Queries that are answered at once.

        What keep has left since the part began is the same factor in all weights of a query, so it is left out of its
        mean: a pair of the part weighs e_s / (prod of keep since the beginning), in logarithms.
        """
        faded = inputs.log_keep.cumsum(1)
        pairs = _joined(state, inputs, _log(inputs.step) - faded)
        y = self._mean(pairs, inputs.q, static)
        return y, self._cropped({**pairs, "log_weight": pairs["log_weight"] + faded[:, -1:]})

    def _mean(self, pairs: Statistics, q: Tensor, static: Mapping[str, Tensor]) -> Tensor:
        """The answers [B,T,H,V] to queries [B,T,H,K] of the last T of the pairs."""
        k, v = pairs["k"].transpose(1, 2), pairs["v"].transpose(1, 2)
        log_weight = pairs["log_weight"].transpose(1, 2).unsqueeze(-2)  # [B,H,1,S]
        similarity = (self._scale(q, static) * q.transpose(1, 2)) @ k.transpose(-1, -2)
        there = (log_weight > UNWRITTEN / 2) & self._within(q.shape[1], k.shape[-2], q.device)
        weights = torch.softmax(torch.where(there, similarity + log_weight, UNWRITTEN), -1)
        # a query without any pair has a uniform softmax over nothing
        return (torch.where(there, weights, 0.0) @ v).transpose(1, 2)

    def _scale(self, q: Tensor, static: Mapping[str, Tensor]) -> Tensor | float:
        """One number, or [H,1,1]."""
        if self.learned:
            return static["log_scale"].exp().view(-1, 1, 1)
        return _usual(self, q.shape[-1])

    def _within(self, queries: int, pairs: int, device: torch.device) -> Tensor:
        """[T,S]: which pairs each of the last queries may look at."""
        age = torch.arange(pairs - queries, pairs, device=device).unsqueeze(-1) - torch.arange(pairs, device=device)
        return age >= 0 if self.window is None else (age >= 0) & (age < self.window)

    def _cropped(self, pairs: Statistics) -> Statistics:
        """The pairs that a window still holds."""
        if self.window is None:
            return pairs
        return {name: x[:, max(0, x.shape[1] - self.window) :] for name, x in pairs.items()}


def _usual(mean: Attention | KernelMean, key_dim: int) -> float:
    """g, at the start if it is learned."""
    root = math.sqrt(key_dim)
    return mean.scale or (root if mean.lengths == "unit" else 1 / root)


def _joined(state: Statistics, inputs: Inputs, log_weight: Tensor) -> Statistics:
    """The inputs' pairs behind those of the state."""
    new = {"k": inputs.k, "v": inputs.v, "log_weight": log_weight}
    return {name: torch.cat([state[name], x], 1) for name, x in new.items()}


def _log(step: Tensor) -> Tensor:
    """The logarithm of a pair's weight; below the smallest number whose inverse is finite it counts as not written."""
    written = step >= torch.finfo(step.dtype).tiny
    return torch.where(written, torch.where(written, step, 1.0).log(), UNWRITTEN)
