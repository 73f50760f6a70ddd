"""The model without its short convolution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from miras_search.space.control.protocol import CONTROL, Inputs, Unchanged


@CONTROL.register
@final
@dataclass(frozen=True, slots=True)
class NoConv(Unchanged):
    """The short convolution before the memory is left out: what did it do, and what the memory?

    The only control that changes what the model has: its filters are not there, as the parameters tell.
    """

    name: ClassVar[str] = "no_conv"
    equation: ClassVar[str] = "q, k, v of token t from token t alone"
    source: ClassVar[str] = "short convolutions solve parts of synthetic recall by themselves"
    model: ClassVar[Mapping[str, int]] = {"conv": 0}

    def apply(self, inputs: Inputs) -> Inputs:
        """The model has changed, not they."""
        return inputs
