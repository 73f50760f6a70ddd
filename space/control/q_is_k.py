"""Reads with the key that was just written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from miras_search.space.control.protocol import CONTROL, Inputs, Unchanged


@CONTROL.register
@final
@dataclass(frozen=True, slots=True)
class QIsK(Unchanged):
    """Each token reads with its own key: is anything looked up that is not being written at that moment?

    Of several writes a token it is the key of the last, along which erase_write writes.
    """

    name: ClassVar[str] = "q_is_k"
    equation: ClassVar[str] = "q_t = k_t"
    source: ClassVar[str] = "queries and keys tied, as in an autoassociative memory"

    def apply(self, inputs: Inputs) -> Inputs:
        """The last write key of each token as its query."""
        written = inputs.k if inputs.w is None else inputs.w
        each = written.shape[1] // inputs.q.shape[1]
        return inputs._replace(q=written[:, each - 1 :: each])
