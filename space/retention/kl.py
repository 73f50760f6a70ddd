"""Retention by the Kullback-Leibler divergence: Memora's softmax, kept in logits.

log W = Z - lse(Z) + log c, and the constant per slice cancels under the softmax, so Eq. 27 in log W and the linear rule
in Z are the same function while the keep gate is constant inside a slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, final

from miras_search.space.fields import require, setting
from miras_search.space.gates import KEEP, Gate, Scope
from miras_search.space.jit import Jit
from miras_search.space.lazy import LazyModule
from miras_search.space.retention.protocol import RETENTION, Dual, Parameters, Retention, Static, check_keep

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

Slice = Literal["column", "row", "whole"]


def softmax_over(z: Tensor, slice_: Slice) -> Tensor:
    """softmax(Z) over each slice of [.., rows, cols]."""
    if slice_ == "whole":
        return torch.softmax(z.flatten(-2), -1).view(z.shape)
    return torch.softmax(z, -2 if slice_ == "column" else -1)


@RETENTION.register
@final
@dataclass(frozen=True, slots=True)
class KlRetention(Dual):
    """Weights on a simplex: the write competes for mass, and keep below 1 draws each slice to uniform."""

    name: ClassVar[str] = "kl"
    equation: ClassVar[str] = "Z_t = a_t Z_{t-1} - e_t g_t;  W = c softmax(Z) over each slice;  coupled: e_t -> a_t e_t"
    source: ClassVar[str] = "Miras, Eq. 19-21 and 27 (Memora), in logits; c of Eq. 21 is a setting"
    objective: ClassVar[str] = (
        "<W - W', g> + 1/e sum W log(W/W') + 1/b sum W log W on {W >= 0, slice sum = c}, so a = b/(b+e), step a e"
    )

    keep: Gate = setting(KEEP, "the share of the old logits that stays")
    slice: Slice = setting(
        "column", "what sums to c: one output's weights (column), one input's (row), or the whole matrix"
    )
    scale: float = setting(1.0, "c, the sum of a slice; where it is learned, its starting value")
    learned_scale: bool = setting(False, "train c, one a head")
    coupled: bool = setting(False, "one objective with a local and a global term: the step is a e; else both are free")

    def __post_init__(self) -> None:
        check_keep(self.keep)
        require(self.scale > 0, "scale", f"{self.scale:g}: a slice sums to a positive number")

    @property
    def keep_scopes(self) -> tuple[Scope, ...]:
        """Constant inside a slice, or the logits would not be those of Eq. 27."""
        own: dict[Slice, tuple[Scope, ...]] = {"column": ("value",), "row": ("key",), "whole": ()}
        return ("head", *own[self.slice])

    @property
    def triton(self) -> Jit:
        """The softmax over its axis, with its scale."""
        axis: dict[Slice, int] = {"column": 0, "row": 1, "whole": 2}
        return Jit("miras_search.kernels.triton.link_kl", (axis[self.slice], self.learned_scale, self.scale))

    def static(self) -> Parameters:
        """log c, if learned."""
        return {"link.log_scale": ((1, 1), math.log(self.scale))} if self.learned_scale else {}

    def link(self, dual: Tensor, static: Static) -> Tensor:
        """c softmax(Z) over the slice."""
        weights = softmax_over(dual, self.slice)
        if self.learned_scale:
            return torch.exp(static["link.log_scale"]) * weights
        return weights if self.scale == 1.0 else self.scale * weights

    def canonical(self) -> Retention:
        """Nothing to couple when everything is kept."""
        return replace(self, coupled=False) if self.keep.is_one else self
