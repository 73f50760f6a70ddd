"""No control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from miras_search.space.control.protocol import CONTROL, Inputs, Unchanged


@CONTROL.register
@final
@dataclass(frozen=True, slots=True)
class NoControl(Unchanged):
    """The design as it is."""

    name: ClassVar[str] = "none"
    equation: ClassVar[str] = "e_t as given"
    source: ClassVar[str] = ""

    def apply(self, inputs: Inputs) -> Inputs:
        """Unchanged."""
        return inputs
