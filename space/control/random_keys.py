"""Keys that depend on the position alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from miras_search.space.control.protocol import CONTROL, Inputs, Unchanged
from miras_search.space.lazy import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from miras_search.space.design import DesignPoint
else:
    torch = LazyModule("torch")

MASK, SEED = 0xFFFFFFFF, 0x9E3779B9


@CONTROL.register
@final
@dataclass(frozen=True, slots=True)
class RandomKeys(Unchanged):
    """Each position has a random key of its own, whatever the token is: is anything addressed by its content?

    The key's projection is replaced by numbers that are uniform and of variance 1, before feature map, length and
    rotation. They are the same in every sequence, layer and run, on every device, and in a stream.
    """

    name: ClassVar[str] = "random_keys"
    equation: ClassVar[str] = "k_t = phi(r_t), r_t a fixed random vector of position t"
    source: ClassVar[str] = "a memory that cannot be addressed by content"

    def keys(self, projected: Tensor, first: int) -> Tensor:
        """The table's rows from `first` on."""
        _, count, heads, width = projected.shape
        rows = torch.arange(first, first + count, device=projected.device)
        cells = torch.arange(heads * width, device=projected.device)
        bits = _hashed(_hashed(rows + SEED).unsqueeze(-1) ^ cells)
        # the upper 24 bits, which a float32 holds exactly
        table = ((bits >> 8).to(projected.dtype) / 2**23 - 1) * math.sqrt(3)
        return table.view(1, count, heads, width).expand_as(projected)

    def apply(self, inputs: Inputs) -> Inputs:
        """Made of the keys already."""
        return inputs

    def problem(self, point: DesignPoint) -> str | None:
        """There must be a projection that it replaces."""
        if point.retention.keep.tie == "key":
            return "the keys are made from keep and not projected, so nothing would change: drop the control"
        return None


def _hashed(x: Tensor) -> Tensor:
    """32 well mixed bits of each integer (a multiply-shift hash), by integers alone: the same everywhere."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK  # a product of 32 and 31 bits fits into 63
    x = ((x ^ (x >> 15)) * 0x446B3A2D) & MASK
    return (x ^ (x >> 16)) & MASK
