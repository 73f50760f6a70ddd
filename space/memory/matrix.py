"""A matrix as memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from miras_search.space.fields import setting
from miras_search.space.memory.protocol import (
    MEMORY,
    Finished,
    Layer,
    Lin,
    Memory,
    Static,
)

if TYPE_CHECKING:
    from torch import Tensor


@MEMORY.register
@final
@dataclass(frozen=True, slots=True)
class Matrix(Finished):
    """A matrix: linear attention's and the delta rule's memory; with residual and norm, TTT-Linear's."""

    name: ClassVar[str] = "matrix"
    equation: ClassVar[str] = "M(x) = x W,  W in R^(K x V);  with residual and norm x + LN(x W)"
    source: ClassVar[str] = "Miras, Table 1; TTT-Linear (2407.04620)"

    residual: bool = setting(False, "add the input (needs K = V)")
    norm: Literal["layer", "none"] = setting("none", "normalise the output before the residual")
    affine: bool = setting(False, "scale and shift of the norm, trained by the outer loop")
    start: Literal["learned", "zero"] = setting("learned", "the weights before the first token")

    def __post_init__(self) -> None:
        self.check_norm()

    @property
    def bare(self) -> bool:
        """Without residual and norm."""
        return self.plain

    @property
    def trained_start(self) -> bool:
        """As the setting says."""
        return self.start == "learned"

    def layers(self, key_dim: int, value_dim: int) -> tuple[Layer, ...]:
        """One layer, K x V."""
        return (Layer(key_dim, value_dim, keyed=True, valued=True),)

    def forward(self, x: Tensor, lin: Lin, static: Static) -> Tensor:
        """x W, or x + LN(x W)."""
        return self.finish(lin(0, x), x, static)

    def canonical(self) -> Memory:
        """Itself."""
        return self
