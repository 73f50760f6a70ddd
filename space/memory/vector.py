"""A vector as memory: every channel remembers for itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from miras_search.space.fields import setting
from miras_search.space.memory.protocol import MEMORY, Layer, Lin, Memory, Network, Static

if TYPE_CHECKING:
    from torch import Tensor


@MEMORY.register
@final
@dataclass(frozen=True, slots=True)
class Vector(Network):
    """One weight a channel: no channel can answer for another."""

    name: ClassVar[str] = "vector"
    equation: ClassVar[str] = "M(x) = x * w,  w in R^d,  K = V = d"
    source: ClassVar[str] = "Miras, section 3.1 and Table 1 (vector-valued memories)"
    start: Literal["learned", "zero"] = setting("learned", "the weights before the first token")

    @property
    def square(self) -> str | None:
        """Always."""
        return "a vector memory multiplies channel by channel: set model.value_dim to model.key_dim"

    @property
    def trained_start(self) -> bool:
        """As the setting says."""
        return self.start == "learned"

    def layers(self, key_dim: int, value_dim: int) -> tuple[Layer, ...]:
        """One diagonal layer."""
        return (Layer(1, value_dim, keyed=True, valued=True, diagonal=True),)

    def forward(self, x: Tensor, lin: Lin, static: Static) -> Tensor:
        """x * w."""
        return lin(0, x)

    def canonical(self) -> Memory:
        """Itself."""
        return self
