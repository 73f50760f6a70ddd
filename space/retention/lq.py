"""Retention by an L_q norm: Moneta's gate, an accumulator that is read through its own norm.

Table 1 prints A/|A|_q^(q-2), which minimises nothing unless q = 2 and is homogeneous of degree 3 - q: at q = 3 the
weights have norm 1 whatever was written, at q = 4 they shrink as the accumulator grows. Two repairs minimise the
objective that Variant 4 states, with q read as the exponent of the accumulator's norm or of the weights'. Both are
homogeneous of degree 1. Shapes: A, W `[B,H,rows,cols]`; the norm `[B,H,1,1]`, or one a column or a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, final

from miras_search.space.fields import require, setting
from miras_search.space.gates import KEEP, Gate
from miras_search.space.lazy import LazyModule
from miras_search.space.retention.l2 import L2Retention
from miras_search.space.retention.protocol import RETENTION, Dual, Retention, Static, check_keep

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

LARGEST = 8.0  # epsilon^(2 - q) of the literal reading is finite in float32 up to here
TINY = 1e-30
DIMS: dict[str, tuple[int, ...]] = {"matrix": (-2, -1), "column": (-2,), "row": (-1,)}


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
    over: Literal["matrix", "column", "row"] = setting(
        "matrix", "what the norm is taken over: all of a layer's weights, one output's (column) or one input's (row)"
    )
    epsilon: float = setting(1e-3, "floor of the norm, and (relative to it) of |A| under a power: A = 0 stays finite")
    keep: Gate = setting(KEEP, "the share of the old accumulator that stays")
    coupled: bool = setting(False, "one objective with a local and a global term: the step is a e; else both are free")

    def __post_init__(self) -> None:
        check_keep(self.keep)
        require(1 < self.q <= LARGEST, "q", f"{self.q:g} is not above 1 and at most {LARGEST:g}")
        require(1e-4 <= self.epsilon < 1, "epsilon", f"{self.epsilon:g} is not between 1e-4 and 1")
        objective = not self.coupled or self.reading != "literal" or self.q == 2
        require(objective, "coupled", "the literal reading minimises nothing that could couple step and keep")

    def start(self, weights: Tensor) -> Tensor:
        """The accumulator whose link is the weights; the weights where that is no choice (literal, q near 3)."""
        q = self.q
        if q == 2:
            return weights
        if self.reading == "literal":
            near = abs(3 - q) < 0.5  # |W| is 1 whatever A is
            return weights if near else weights * self._norm(weights, q) ** ((q - 2) / (3 - q))
        if self.reading == "dual_index":
            return self._powered(weights, q / (q - 1))
        return self._powered(weights, q) / (q - 1)

    def link(self, dual: Tensor, static: Static) -> Tensor:
        """W of A, as the reading has it."""
        q = self.q
        if q == 2:
            return dual
        if self.reading == "literal":
            return dual * self._norm(dual, q) ** (2 - q)
        if self.reading == "dual_index":
            return self._powered(dual, q)
        return (q - 1) * self._powered(dual, q / (q - 1))

    def _powered(self, x: Tensor, s: float) -> Tensor:
        """x |x|^(s-2) / |x|_s^(s-2), the gradient of |x|_s^2 / 2; s < 2 is infinitely steep at 0 but for epsilon."""
        ratio = x / self._norm(x, s)
        return x * (ratio.square() + self.epsilon**2).pow(s / 2 - 1)

    def _norm(self, x: Tensor, s: float) -> Tensor:
        """sqrt(|x|_s^2 + epsilon^2), of numbers divided by their largest, whose powers neither overflow nor vanish."""
        dims = DIMS[self.over]
        largest = x.detach().abs().amax(dims, keepdim=True).clamp(min=TINY)
        # at least 1 by construction, but for x = 0, where the root would have no slope
        total = (x / largest).abs().pow(s).sum(dims, keepdim=True).clamp(min=1.0)
        return torch.hypot(largest * total.pow(1 / s), torch.full_like(total, self.epsilon))

    def canonical(self) -> Retention:
        """Weight decay at q = 2; nothing to couple when everything is kept."""
        if self.q == 2:
            return L2Retention(self.keep, self.coupled).canonical()
        return replace(self, coupled=False) if self.keep.is_one else self
