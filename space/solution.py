"""Memories that are not descended to but solved for: the minimiser of the inner loss over all tokens, in closed form.

A solution keeps sufficient statistics of the past (`state`, named tensors) instead of weights. It is defined token by
token (`absorb`, `read`) and has a parallel form (`whole`). Shapes: q, k `[B,T,H,K]`, v `[B,T,H,V]`, gates `[B,T,H]`, or
`[B,T,H,C]` by channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from miras_search.space.control import Inputs

Statistics = dict[str, "Tensor"]


class Solution(Protocol):
    """An associative memory in closed form."""

    def initial(self, inputs: Inputs) -> Statistics:
        """The statistics before the first token, of the inputs' shapes, device and dtype."""

    def absorb(self, state: Statistics, token: Inputs, static: Mapping[str, Tensor]) -> Statistics:
        """The statistics after one token (inputs with T = 1)."""

    def read(self, state: Statistics, q: Tensor, static: Mapping[str, Tensor]) -> Tensor:
        """y [B,1,H,V] for a query [B,1,H,K]."""

    def whole(self, state: Statistics, inputs: Inputs, static: Mapping[str, Tensor]) -> tuple[Tensor, Statistics]:
        """Outputs [B,T,H,V] and the statistics after all tokens, in parallel."""
