"""What the kernels need to know of a retention gate.

A dual gate keeps an accumulator Z that follows the linear rule Z_t = a_t Z_{t-1} - e_t g_t; the weights in force are
W_t = link(Z_t). A primal gate keeps the weights themselves and changes them in place, W_t = step(W_{t-1}, a_t, -e_t
g_t). Z, W `[B,H,rows,cols]`; keep and step broadcast over them; static parameters `[H,1,1]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from miras_search.space.fields import require
from miras_search.space.gates import Gate, Scope, keep_problem
from miras_search.space.jit import Jit
from miras_search.space.option import Axis, Facts

if TYPE_CHECKING:
    from torch import Tensor

Static = Mapping[str, "Tensor"]
Parameters = dict[str, tuple[tuple[int, ...], float]]
Layers = tuple["Tensor", ...]


class Retention(Facts, Protocol):
    """What the kernels need to know of a retention gate. `Dual` and `Primal` have the answers of a plain one."""

    objective: ClassVar[str]  # what the gate minimises together with the bias; "" when it is a rule

    @property
    def form(self) -> Literal["dual", "primal"]:
        """Whether what it keeps is an accumulator or the weights themselves."""

    @property
    def identity(self) -> bool:
        """Whether the weights in force are what it keeps."""

    @property
    def keep(self) -> Gate:
        """The gate on the old memory."""

    @property
    def coupled(self) -> bool:
        """Whether keep also shortens the step, as one objective with a local and a global term has it."""

    @property
    def restart(self) -> bool:
        """Whether a chunk starts from the linked weights in the accumulator's place (link_refresh: chunk)."""

    @property
    def keep_scopes(self) -> tuple[Scope, ...]:
        """What the keep gate may have values for."""

    @property
    def triton(self) -> Jit | None:
        """The jit functions of its link, or of a primal gate's step; None: there are none, or it is the identity."""

    def static(self) -> Parameters:
        """Parameters a head that only the outer loop trains: shape and starting value by name."""

    def start(self, weights: Tensor) -> Tensor:
        """The learned parameter at initialisation, whose `origin` is near the given weights."""

    def origin(self, parameter: Tensor) -> Tensor:
        """What it keeps before the first token, from the learned parameter."""

    def link(self, dual: Tensor, static: Static) -> Tensor:
        """The weights in force, from what it keeps."""

    def starts(self, weights: Layers) -> Layers:
        """`start` of all layers of a memory together."""

    def links(self, dual: Layers, static: Static) -> Layers:
        """`link` of all layers of a memory together."""

    def step(self, weights: Tensor, keep: Tensor, change: Tensor, step: Tensor, static: Static) -> Tensor:
        """What it keeps after one write that adds `change` = -e g."""

    def canonical(self) -> Retention:
        """The simplest spelling of the same function."""


RETENTION: Axis[Retention] = Axis("retention", "how much of the old memory a write leaves standing")


class Dual:
    """The answers of a dual gate; a class of its own overrides what differs."""

    __slots__ = ()

    @property
    def form(self) -> Literal["dual", "primal"]:
        """An accumulator."""
        return "dual"

    @property
    def identity(self) -> bool:
        """A link lies between."""
        return False

    @property
    def coupled(self) -> bool:
        """Both are free."""
        return False

    @property
    def restart(self) -> bool:
        """The accumulator persists."""
        return False

    @property
    def keep_scopes(self) -> tuple[Scope, ...]:
        """All."""
        return ("head", "key", "value", "key_value")

    @property
    def triton(self) -> Jit | None:
        """None."""
        return None

    def static(self) -> Parameters:
        """None."""
        return {}

    def start(self, weights: Tensor) -> Tensor:
        """The weights."""
        return weights

    def origin(self, parameter: Tensor) -> Tensor:
        """The parameter."""
        return parameter

    def link(self, dual: Tensor, static: Static) -> Tensor:
        """The identity."""
        return dual

    def starts(self, weights: Layers) -> Layers:
        """Layer by layer."""
        return tuple(self.start(w) for w in weights)

    def links(self, dual: Layers, static: Static) -> Layers:
        """Layer by layer."""
        return tuple(self.link(z, static) for z in dual)

    def step(self, weights: Tensor, keep: Tensor, change: Tensor, step: Tensor, static: Static) -> Tensor:
        """a Z - e g."""
        return keep * weights + change


class Primal(Dual):
    """The answers of a primal gate, which has a `step` of its own."""

    __slots__ = ()

    @property
    def form(self) -> Literal["dual", "primal"]:
        """The weights."""
        return "primal"

    @property
    def identity(self) -> bool:
        """They are."""
        return True


def check_keep(keep: Gate) -> None:
    """Raise where a gate cannot be a keep gate."""
    problem = keep_problem(keep)
    require(problem is None, "keep", problem or "")
