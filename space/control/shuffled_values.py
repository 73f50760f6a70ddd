"""Keys with the values of another sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from miras_search.space.control.protocol import CONTROL, Inputs, Unchanged
from miras_search.space.lazy import LazyModule

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch")


@CONTROL.register
@final
@dataclass(frozen=True, slots=True)
class ShuffledValues(Unchanged):
    """Keys are stored with the values of another sequence: is it what is stored that helps, or storing as such?

    Sequence b is given the values of sequence b-1 of its batch, token by token, so the order in time stays causal and
    their distribution what it was. A sequence that is alone in its batch has no other: its values are 0.
    """

    name: ClassVar[str] = "shuffled_values"
    equation: ClassVar[str] = "v_t of sequence b -> v_t of sequence b-1 of the batch"
    source: ClassVar[str] = "a permutation test of the pairs"

    def apply(self, inputs: Inputs) -> Inputs:
        """The values rolled by one along the batch."""
        v = inputs.v
        return inputs._replace(v=torch.zeros_like(v) if v.shape[0] == 1 else v.roll(1, 0))
