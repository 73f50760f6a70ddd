"""A gated linear unit as memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from miras_search.space.fields import require, setting
from miras_search.space.memory.protocol import (
    MEMORY,
    Activation,
    Finished,
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
class GatedMlp(Finished):
    """A gated linear unit as memory: one branch decides what the other lets through.

    It has no `start: zero`: with all layers zero every gradient is zero, and nothing would ever be written.
    """

    name: ClassVar[str] = "gated_mlp"
    equation: ClassVar[str] = "M(x) = x + LN((s(x W_0) * (x W_1)) W_2)"
    source: ClassVar[str] = "SwiGLU, named as a memory in the ICLR version of Miras"

    expansion: int = setting(4, "hidden width as a multiple of the key dimension")
    activation: Activation = setting("silu", "of the gating branch")
    residual: bool = setting(True, "add the input (needs K = V)")
    norm: Literal["layer", "none"] = setting("layer", "normalise the output before the residual")
    affine: bool = setting(False, "scale and shift of the norm, trained by the outer loop")

    def __post_init__(self) -> None:
        require(1 <= self.expansion <= 64, "expansion", f"{self.expansion} is not between 1 and 64")
        self.check_norm()

    def layers(self, key_dim: int, value_dim: int) -> tuple[Layer, ...]:
        """K x E, K x E, E x V."""
        hidden = self.expansion * key_dim
        up = Layer(key_dim, hidden, keyed=True, valued=False)
        return (up, up, Layer(hidden, value_dim, keyed=False, valued=True))

    def forward(self, x: Tensor, lin: Lin, static: Static) -> Tensor:
        """x + LN((s(x W_0) * (x W_1)) W_2)."""
        h = activate(self.activation, lin(0, x)) * lin(1, x)
        return self.finish(lin(2, h), x, static)

    def canonical(self) -> Memory:
        """Itself."""
        return self
