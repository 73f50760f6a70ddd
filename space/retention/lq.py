"""Retention by an L_q norm: Moneta's gate, an accumulator that is read through its own norm.

Table 1 prints A/|A|_q^(q-2), which minimises nothing unless q = 2 and is homogeneous of degree 3 - q: at q = 3 the
weights have norm 1 whatever was written, at q = 4 they shrink as the accumulator grows. Two repairs minimise the
objective that Variant 4 states, with q read as the exponent of the accumulator's norm or of the weights'. Both are
homogeneous of degree 1. The paper does not say over what the norm is taken, nor whether a chunk that ends with
W = link(A) goes on from A or, renormalised in place, from W (`restart`). Shapes: A, W `[B,H,rows,cols]` a layer; the
norm `[B,H,1,1]`, or one a column or a row.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, final

from miras_search.space.fields import require, setting
from miras_search.space.gates import KEEP, Gate
from miras_search.space.jit import Jit
from miras_search.space.lazy import LazyModule
from miras_search.space.retention.l2 import L2Retention
from miras_search.space.retention.protocol import RETENTION, Dual, Layers, Retention, Static, check_keep

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

LARGEST = 8.0  # epsilon^(2 - q) of the literal reading is finite in float32 up to here
TINY = 1e-30
DIMS: dict[str, tuple[int, ...]] = {"matrix": (-2, -1), "column": (-2,), "row": (-1,), "memory": (-2, -1)}


@RETENTION.register
@final
@dataclass(frozen=True, slots=True)
class LqRetention(Dual):
    """The accumulator of all writes, each entry read relative to the norm of all: large ones speak louder, or softer.

    In the literal reading |W|_q = |A|_q^(3-q) (degree 3 - q): no gate of an objective, and singular at A = 0 for q > 2,
    where epsilon holds it. A keep that varies inside a norm is a rule too, since the norm couples all entries.
    """

    name: ClassVar[str] = "lq"
    equation: ClassVar[str] = (
        "A_t = a_t A_{t-1} - e_t g_t;  literal: W = A / |A|_q^(q-2);  dual_index: W = A |A|^(q-2) / |A|_q^(q-2);  "
        "primal_index: W = (q-1) A |A|^(p-2) / |A|_p^(p-2), p = q/(q-1);  coupled: e_t -> a_t e_t"
    )
    source: ClassVar[str] = (
        "Miras, Variant 4 and Eq. 24 (Moneta): literal as printed; the others restore the elementwise powers that the "
        "text explains and the formula lost"
    )
    objective: ClassVar[str] = (
        "-<A, W> + 1/2 |W|_p^2, p = q/(q-1) (dual_index), or 1/(2(q-1)) |W|_q^2 (primal_index), which with F for the "
        "norms is also <W - W', g> + 1/e D_F(W, W') + 1/b F(W), a = b/(b+e), step a e;  literal: none"
    )

    q: float = setting(4.0, "the exponent, above 1; every reading is the identity at 2", named=True)
    reading: Literal["literal", "dual_index", "primal_index"] = setting(
        "dual_index", "Moneta as printed; or q the exponent of the accumulator's norm; or q that of the weights'",
        named=True,
    )  # fmt: skip
    over: Literal["matrix", "column", "row", "memory"] = setting(
        "matrix",
        "what the norm is taken over: a layer's weights, one output's (column) or input's (row), or all layers'",
    )
    epsilon: float = setting(1e-3, "floor of the norm, and (relative to it) of |A| under a power: A = 0 stays finite")
    keep: Gate = setting(KEEP, "the share of the old accumulator that stays")
    coupled: bool = setting(False, "one objective with a local and a global term: the step is a e; else both are free")
    restart: bool = setting(
        False,
        "with link_refresh: chunk, a chunk goes on from the linked weights (in place), not from the accumulator: each "
        "chunk moves the memory, whatever is written; with primal_index and q > 2 by a factor of q - 1 or more",
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)
        require(1 < self.q <= LARGEST, "q", f"{self.q:g} is not above 1 and at most {LARGEST:g}")
        require(1e-4 <= self.epsilon < 1, "epsilon", f"{self.epsilon:g} is not between 1e-4 and 1")
        objective = not self.coupled or self.reading != "literal" or self.q == 2
        require(objective, "coupled", "the literal reading minimises nothing that could couple step and keep")

    @property
    def identity(self) -> bool:
        """At q = 2, in every reading."""
        return self.q == 2

    @property
    def triton(self) -> Jit:
        """The link of the reading, of a memory with one layer."""
        axis = {"column": 0, "row": 1}.get(self.over, 2)
        q = self.q
        p = q / (q - 1)
        form: dict[str, tuple[str, float, float]] = {
            "literal": ("scaled", q, 2 - q), "dual_index": ("powered", q, 1.0), "primal_index": ("powered", p, q - 1)
        }  # fmt: skip
        return Jit("miras_search.kernels.triton.link_lq", (*form[self.reading], axis, self.epsilon))

    def start(self, weights: Tensor) -> Tensor:
        """`starts` of a single layer."""
        return self.starts((weights,))[0]

    def link(self, dual: Tensor, static: Static) -> Tensor:
        """`links` of a single layer."""
        return self.links((dual,), static)[0]

    def starts(self, weights: Layers) -> Layers:
        """The accumulators whose link is the weights; the weights where that is no choice (literal, q near 3)."""
        q = self.q
        if self.reading == "literal":
            near = abs(3 - q) < 0.5  # |W| is 1 whatever A is
            return weights if near else self._scaled(weights, (q - 2) / (3 - q))
        if self.reading == "dual_index":
            return self._powered(weights, q / (q - 1))
        return tuple(a / (q - 1) for a in self._powered(weights, q))

    def links(self, dual: Layers, static: Static) -> Layers:
        """W of A, as the reading has it."""
        q = self.q
        if self.reading == "literal":
            return self._scaled(dual, 2 - q)
        if self.reading == "dual_index":
            return self._powered(dual, q)
        return tuple((q - 1) * w for w in self._powered(dual, q / (q - 1)))

    def _scaled(self, layers: Layers, power: float) -> Layers:
        """x |x|_q^power."""
        if power == 0:
            return layers
        return tuple(x * norm**power for x, norm in zip(layers, self._norms(layers, self.q), strict=True))

    def _powered(self, layers: Layers, s: float) -> Layers:
        """x |x|^(s-2) / |x|_s^(s-2), the gradient of |x|_s^2 / 2; s < 2 is infinitely steep at 0 but for epsilon."""
        if s == 2:
            return layers
        ratios = (x / norm for x, norm in zip(layers, self._norms(layers, s), strict=True))
        powers = ((ratio.square() + self.epsilon**2).pow(s / 2 - 1) for ratio in ratios)
        return tuple(x * power for x, power in zip(layers, powers, strict=True))

    def _norms(self, layers: Layers, s: float) -> Layers:
        """sqrt(|x|_s^2 + epsilon^2), of numbers divided by their largest, whose powers neither overflow nor vanish."""
        dims, count = DIMS[self.over], len(layers)
        largest = [x.detach().abs().amax(dims, keepdim=True) for x in layers]
        if self.over == "memory":
            largest = [functools.reduce(torch.maximum, largest)] * count
        largest = [x.clamp(min=TINY) for x in largest]
        sums = [(x / unit).abs().pow(s).sum(dims, keepdim=True) for x, unit in zip(layers, largest, strict=True)]
        if self.over == "memory":
            sums = [torch.stack(sums).sum(0)] * count
        # at least 1 by construction, but for x = 0, where the root would have no slope
        totals = [x.clamp(min=1.0) for x in sums]
        return tuple(
            torch.hypot(unit * total.pow(1 / s), torch.full_like(total, self.epsilon))
            for unit, total in zip(largest, totals, strict=True)
        )

    def canonical(self) -> Retention:
        """Weight decay at q = 2; nothing to couple when everything is kept."""
        if self.q == 2:
            return L2Retention(self.keep, self.coupled).canonical()
        return replace(self, coupled=False) if self.keep.is_one else self
