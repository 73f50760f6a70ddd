"""A multilayer perceptron as memory."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from miras_search.space.fields import require, setting
from miras_search.space.memory.matrix import Matrix
from miras_search.space.memory.protocol import (
    MEMORY,
    Activation,
    Finished,
    Hidden,
    Layer,
    Lin,
    Memory,
    Static,
    activate,
)

if TYPE_CHECKING:
    from torch import Tensor


@MEMORY.register
@final
@dataclass(frozen=True, slots=True)
class Mlp(Finished):
    """A multilayer perceptron: Titans' and Miras' deep memory.

    It has no `start: zero`: with two layers zero every gradient is zero, and nothing would ever be written.
    """

    name: ClassVar[str] = "mlp"
    equation: ClassVar[str] = "M(x) = x + LN(s(x W_0) W_1)  (depth 2; residual, norm and depth are settings)"
    source: ClassVar[str] = "Miras, section 5.3; TTT-MLP"

    depth: int = setting(2, "number of linear layers")
    expansion: int = setting(4, "hidden width as a multiple of the key dimension")
    activation: Activation = setting("gelu", "between the layers")
    residual: bool = setting(True, "add the input (needs K = V)")
    norm: Literal["layer", "none"] = setting("layer", "normalise the output before the residual")
    affine: bool = setting(False, "scale and shift of the norm, trained by the outer loop")

    def __post_init__(self) -> None:
        require(1 <= self.depth <= 8, "depth", f"{self.depth} is not between 1 and 8")
        require(1 <= self.expansion <= 64, "expansion", f"{self.expansion} is not between 1 and 64")
        self.check_norm()

    @property
    def bare(self) -> bool:
        """Only when it is a plain matrix."""
        return self.depth == 1 and self.plain

    @property
    def hidden(self) -> Hidden | None:
        """At depth 2."""
        return Hidden(self.activation, self.finishing) if self.depth == 2 else None

    def layers(self, key_dim: int, value_dim: int) -> tuple[Layer, ...]:
        """K x E, E x E ..., E x V with E = expansion * K."""
        hidden = [self.expansion * key_dim] * (self.depth - 1)
        widths = [key_dim, *hidden, value_dim]
        last = self.depth - 1
        return tuple(Layer(a, b, i == 0, i == last) for i, (a, b) in enumerate(itertools.pairwise(widths)))

    def forward(self, x: Tensor, lin: Lin, static: Static) -> Tensor:
        """x + LN(s(x W_0) ... W_n)."""
        h = x
        for layer in range(self.depth - 1):
            h = activate(self.activation, lin(layer, h))
        return self.finish(lin(self.depth - 1, h), x, static)

    def canonical(self) -> Memory:
        """At depth 1, the matrix."""
        if self.depth > 1:
            return self
        return Matrix(residual=self.residual, norm=self.norm, affine=self.affine)
