"""Memory architecture, axis 1: the function whose weights store the associations.

A memory is written as `forward(x, lin, static)`, where `lin(l, x)` applies linear layer l with whatever weights are in
force. The kernels run the same forward with different `lin`: start-of-chunk weights, weights in the middle of a chunk,
zero taps for back-propagation. Shapes: `x [B,H,N,K] -> [B,H,N,V]`; layer l has weights `[B,H,rows,cols]`, as x W.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol, final

from miras_search.space.fields import require, setting
from miras_search.space.lazy import LazyModule
from miras_search.space.option import Axis, Facts

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

Lin = Callable[[int, "Tensor"], "Tensor"]
Static = Mapping[str, "Tensor"]
Activation = Literal["gelu", "silu", "relu", "tanh"]


class Layer(NamedTuple):
    """Shape of one linear layer: x [.., rows] -> [.., cols]."""

    rows: int
    cols: int


class Memory(Facts, Protocol):
    """What the kernels need to know of a memory."""

    @property
    def bare(self) -> bool:
        """Whether forward is lin(0, x) and nothing else: signals need no back-propagation."""

    @property
    def residual(self) -> bool:
        """Whether it adds its input, so that it needs K = V."""

    def layers(self, key_dim: int, value_dim: int) -> tuple[Layer, ...]:
        """Shapes of the layers that are written at test time."""

    def static(self, key_dim: int, value_dim: int) -> dict[str, tuple[tuple[int, ...], float]]:
        """Parameters a head that only the outer loop trains: shape and starting value by name."""

    def forward(self, x: Tensor, lin: Lin, static: Static) -> Tensor:
        """The prediction [B,H,N,V] for inputs [B,H,N,K]; static parameters are [H,1,d]."""

    def canonical(self) -> Memory:
        """The simplest spelling of the same function."""


MEMORY: Axis[Memory] = Axis("memory", "the function whose weights store the associations")


def _activate(name: Activation, x: Tensor) -> Tensor:
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "gelu": torch.nn.functional.gelu,
        "silu": torch.nn.functional.silu,
        "relu": torch.relu,
        "tanh": torch.tanh,
    }
    return functions[name](x)


def _finish(y: Tensor, x: Tensor, static: Static, *, norm: str, affine: bool, residual: bool) -> Tensor:
    """x + LN(y), each part optional."""
    if norm == "layer":
        y = torch.nn.functional.layer_norm(y, y.shape[-1:], eps=1e-5)
        if affine:
            y = y * static["norm.weight"] + static["norm.bias"]
    return x + y if residual else y


def _affine(value_dim: int) -> dict[str, tuple[tuple[int, ...], float]]:
    return {"norm.weight": ((1, value_dim), 1.0), "norm.bias": ((1, value_dim), 0.0)}


@MEMORY.register
@final
@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix: linear attention's and the delta rule's memory."""

    name: ClassVar[str] = "matrix"
    equation: ClassVar[str] = "M(x) = x W,  W in R^(K x V)"
    source: ClassVar[str] = "Miras, Table 1"
    bare: ClassVar[bool] = True
    residual: ClassVar[bool] = False

    def layers(self, key_dim: int, value_dim: int) -> tuple[Layer, ...]:
        """One layer, K x V."""
        return (Layer(key_dim, value_dim),)

    def static(self, key_dim: int, value_dim: int) -> dict[str, tuple[tuple[int, ...], float]]:
        """None."""
        return {}

    def forward(self, x: Tensor, lin: Lin, static: Static) -> Tensor:
        """x W."""
        return lin(0, x)

    def canonical(self) -> Memory:
        """Itself."""
        return self


@MEMORY.register
@final
@dataclass(frozen=True, slots=True)
class Mlp:
    """A multilayer perceptron: Titans' and Miras' deep memory."""

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
        require(self.norm == "layer" or not self.affine, "affine", "there is no norm to scale: set norm: layer")

    @property
    def bare(self) -> bool:
        """Only when it is a plain matrix."""
        return self.depth == 1 and not self.residual and self.norm == "none"

    def layers(self, key_dim: int, value_dim: int) -> tuple[Layer, ...]:
        """K x E, E x E ..., E x V with E = expansion * K."""
        hidden = [self.expansion * key_dim] * (self.depth - 1)
        widths = [key_dim, *hidden, value_dim]
        return tuple(Layer(a, b) for a, b in itertools.pairwise(widths))

    def static(self, key_dim: int, value_dim: int) -> dict[str, tuple[tuple[int, ...], float]]:
        """The norm's scale and shift, if affine."""
        return _affine(value_dim) if self.affine else {}

    def forward(self, x: Tensor, lin: Lin, static: Static) -> Tensor:
        """x + LN(s(x W_0) ... W_n)."""
        h = x
        for layer in range(self.depth - 1):
            h = _activate(self.activation, lin(layer, h))
        y = lin(self.depth - 1, h)
        return _finish(y, x, static, norm=self.norm, affine=self.affine, residual=self.residual)

    def canonical(self) -> Memory:
        """The matrix where it is one; expansion and activation dropped to their defaults at depth 1."""
        if self.bare:
            return Matrix()
        if self.depth == 1:
            return Mlp(depth=1, residual=self.residual, norm=self.norm, affine=self.affine)
        return self


@MEMORY.register
@final
@dataclass(frozen=True, slots=True)
class GatedMlp:
    """A gated linear unit as memory: one branch decides what the other lets through."""

    name: ClassVar[str] = "gated_mlp"
    equation: ClassVar[str] = "M(x) = x + LN((s(x W_0) * (x W_1)) W_2)"
    source: ClassVar[str] = "SwiGLU, named as a memory in the ICLR version of Miras"

    expansion: int = setting(4, "hidden width as a multiple of the key dimension")
    activation: Activation = setting("silu", "of the gating branch")
    residual: bool = setting(True, "add the input (needs K = V)")
    norm: Literal["layer", "none"] = setting("layer", "normalise the output before the residual")
    affine: bool = setting(False, "scale and shift of the norm, trained by the outer loop")

    bare: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(1 <= self.expansion <= 64, "expansion", f"{self.expansion} is not between 1 and 64")
        require(self.norm == "layer" or not self.affine, "affine", "there is no norm to scale: set norm: layer")

    def layers(self, key_dim: int, value_dim: int) -> tuple[Layer, ...]:
        """K x E, K x E, E x V."""
        hidden = self.expansion * key_dim
        return (Layer(key_dim, hidden), Layer(key_dim, hidden), Layer(hidden, value_dim))

    def static(self, key_dim: int, value_dim: int) -> dict[str, tuple[tuple[int, ...], float]]:
        """The norm's scale and shift, if affine."""
        return _affine(value_dim) if self.affine else {}

    def forward(self, x: Tensor, lin: Lin, static: Static) -> Tensor:
        """x + LN((s(x W_0) * (x W_1)) W_2)."""
        h = _activate(self.activation, lin(0, x)) * lin(1, x)
        return _finish(lin(2, h), x, static, norm=self.norm, affine=self.affine, residual=self.residual)

    def canonical(self) -> Memory:
        """Itself."""
        return self
