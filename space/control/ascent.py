"""Writes in the wrong direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from miras_search.space.control.protocol import CONTROL, Inputs, Unchanged


@CONTROL.register
@final
@dataclass(frozen=True, slots=True)
class Ascent(Unchanged):
    """The inner step climbs the loss instead of descending it: does the attentional bias act as a loss at all?

    Every step of a token is turned, that of erase_write's erase too: what it finds is added again, not taken away. Of
    the dot bias in a matrix only the sign of what is read changes, which the projections around it take up: there it
    refutes nothing.
    """

    name: ClassVar[str] = "ascent"
    equation: ClassVar[str] = "e_t -> -e_t"
    source: ClassVar[str] = "reviews of Miras: negative controls"
    turns_step: ClassVar[bool] = True

    def apply(self, inputs: Inputs) -> Inputs:
        """The step's sign flipped."""
        return inputs.stepped(-1.0)
