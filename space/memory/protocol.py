"""What the kernels need to know of a memory architecture.

A memory is written as `forward(x, lin, static)`, where `lin(l, x)` applies linear layer l with whatever weights are in
force. The kernels run the same forward with different `lin`: start-of-chunk weights, weights in the middle of a chunk,
zero taps for back-propagation. Shapes: `x [B,H,N,K] -> [B,H,N,V]`; layer l has weights `[B,H,rows,cols]`, as x W, or
`[B,H,1,cols]`, as x * w, where it is diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from miras_search.space.fields import require
from miras_search.space.lazy import LazyModule
from miras_search.space.memory.finish import Finish
from miras_search.space.option import Axis, Facts

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from miras_search.space import smooth
    from miras_search.space.solution import Solution
else:
    torch = LazyModule("torch")
    smooth = LazyModule("miras_search.space.smooth")

Lin = Callable[[int, "Tensor"], "Tensor"]
Static = Mapping[str, "Tensor"]
Parameters = dict[str, tuple[tuple[int, ...], float]]
Activation = Literal["gelu", "silu", "relu", "tanh"]


class Layer(NamedTuple):
    """Shape of a linear layer, x [.., rows] -> [.., cols], and which of its axes are the key's and value's channels."""

    rows: int
    cols: int
    keyed: bool  # its rows are key channels
    valued: bool  # its columns are value channels
    diagonal: bool = False  # x * w: one row, and the columns are both


class Hidden(NamedTuple):
    """A memory with one hidden layer: finish(s(x W_0) W_1, x, static)."""

    activation: Activation  # s
    finish: Finish


class Memory(Facts, Protocol):
    """What the kernels need to know of a memory. `Network` has the answers that most give."""

    @property
    def bare(self) -> bool:
        """Whether forward is x W and nothing else: signals need no back-propagation, and a chunk is matrix products."""

    @property
    def hidden(self) -> Hidden | None:
        """What it is made of where it has one hidden layer, so that chunks have a backward by hand; else None."""

    @property
    def square(self) -> str | None:
        """Why it needs K = V, or None."""

    @property
    def trained_start(self) -> bool:
        """Whether the weights before the first token are learned by the outer loop; else they are zero."""

    @property
    def is_kernel(self) -> bool:
        """Whether it keeps the pairs themselves and has no weights (attention)."""

    def layers(self, key_dim: int, value_dim: int) -> tuple[Layer, ...]:
        """Shapes of the layers that are written at test time."""

    def static(self, key_dim: int, value_dim: int) -> Parameters:
        """Parameters a head that only the outer loop trains: shape and starting value by name."""

    def forward(self, x: Tensor, lin: Lin, static: Static) -> Tensor:
        """The prediction [B,H,N,V] for inputs [B,H,N,K]; static parameters are [H,1,d]."""

    def solution(self) -> Solution | None:
        """How the pairs themselves answer, in a memory that keeps them; None where it has weights."""

    def canonical(self) -> Memory:
        """The simplest spelling of the same function."""


MEMORY: Axis[Memory] = Axis("memory", "the function whose weights store the associations")


class Network:
    """The answers of a memory with weights that the outer loop starts; a class of its own overrides what differs."""

    __slots__ = ()

    @property
    def bare(self) -> bool:
        """More than one product."""
        return False

    @property
    def hidden(self) -> Hidden | None:
        """It is made of something else."""
        return None

    @property
    def trained_start(self) -> bool:
        """Learned."""
        return True

    @property
    def is_kernel(self) -> bool:
        """It has weights."""
        return False

    @property
    def square(self) -> str | None:
        """Any dimensions."""
        return None

    def static(self, key_dim: int, value_dim: int) -> Parameters:
        """None."""
        return {}

    def solution(self) -> Solution | None:
        """It has weights."""
        return None


class Finished(Network):
    """What a memory does with its network's output y: x + LN(y), each part optional.

    A class of its own has the settings, because their defaults and their order differ.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def residual(self) -> bool:
            """Whether the input is added."""

        @property
        def norm(self) -> Literal["layer", "none"]:
            """How the output is normalised before that."""

        @property
        def affine(self) -> bool:
            """Whether the norm has a scale and a shift, which the outer loop trains."""

    def check_norm(self) -> None:
        """Raise `FieldError` where there is no norm to scale."""
        require(self.norm == "layer" or not self.affine, "affine", "there is no norm to scale: set norm: layer")

    @property
    def plain(self) -> bool:
        """Whether the output stays as it is."""
        return not self.residual and self.norm == "none"

    @property
    def square(self) -> str | None:
        """With a residual."""
        if not self.residual:
            return None
        return (
            "a residual memory adds its input to its output, so key and value dimensions must be equal: "
            "set residual: false or model.value_dim to model.key_dim"
        )

    def static(self, key_dim: int, value_dim: int) -> Parameters:
        """The norm's scale and shift, if affine."""
        if not self.affine:
            return {}
        return {"norm.weight": ((1, value_dim), 1.0), "norm.bias": ((1, value_dim), 0.0)}

    def finish(self, y: Tensor, x: Tensor, static: Static) -> Tensor:
        """x + LN(y)."""
        return self.finishing(y, x, static)

    @property
    def finishing(self) -> Finish:
        """That as a function of its own, with derivatives."""
        return Finish(residual=self.residual, norm=self.norm == "layer", affine=self.affine)


def activate(name: Activation, x: Tensor) -> Tensor:
    """The activation of that name."""
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "gelu": smooth.gelu,
        "silu": smooth.silu,
        "relu": torch.relu,
        "tanh": torch.tanh,
    }
    return functions[name](x)
