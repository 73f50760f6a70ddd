"""Negative controls: a design point with the thing it is about taken away or turned round.

A control changes what the memory is given, not the model around it, so parameters and budget stay those of the point.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, final

from miras_search.space.gates import product_keys, times
from miras_search.space.lazy import LazyModule
from miras_search.space.option import Axis, Facts

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")


class Inputs(NamedTuple):
    """What a memory layer is given. B batch, T tokens, N = T * writes, H heads, K key and V value dimension.

    A gate has an axis more, [..,C], where its scope is not the head: C = K, V, or K + V for key_value.
    """

    q: Tensor  # [B,T,H,K]
    k: Tensor  # read keys [B,N,H,K], the writes of a token in order
    v: Tensor  # [B,N,H,V]
    log_keep: Tensor  # [B,T,H], <= 0
    step: Tensor  # [B,N,H]
    momentum: Tensor | None = None  # [B,N,H]
    threshold: Tensor | None = None  # [B,N,H]
    w: Tensor | None = None  # write keys [B,N,H,K] where they differ from the read keys
    share: Tensor | None = None  # [B,T,H,window] weight of each pair in a window, oldest first

    def stepped(self, factor: Tensor | float) -> Inputs:
        """Every step times a number."""
        return self._replace(step=times(self.step, factor, product_keys(self.step, self.k, self.v)))

    def tokens(self, first: int, last: int) -> Inputs:
        """Those of tokens first..last-1, with all their writes and pairs."""
        count = self.q.shape[1]

        def part(x: Tensor) -> Tensor:
            each = x.shape[1] // count
            return x[:, first * each : last * each]

        return self.map(part)

    def split(self, sizes: Sequence[int]) -> list[Inputs]:
        """Consecutive pieces of so many tokens each. Where all are needed this goes back in one pass, unlike a slice of
        each, whose gradient is as long as the whole.
        """
        count = self.q.shape[1]
        pieces = [
            itertools.repeat(None) if x is None else torch.split(x, [x.shape[1] // count * size for size in sizes], 1)
            for x in self
        ]
        return [Inputs(*piece) for piece in zip(*pieces, strict=False)]

    def map(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """Every tensor changed."""
        return Inputs(*(x if x is None else change(x) for x in self))  # type: ignore[arg-type]  # the first five are tensors


class Control(Facts, Protocol):
    """A transformation of the memory's inputs."""

    turns_step: ClassVar[bool]  # whether steps change their sign

    def apply(self, inputs: Inputs) -> Inputs:
        """The inputs with the control's change."""


CONTROL: Axis[Control] = Axis("control", "what is taken away or turned round, to refute a claim")


@CONTROL.register
@final
@dataclass(frozen=True, slots=True)
class NoControl:
    """The design as it is."""

    name: ClassVar[str] = "none"
    equation: ClassVar[str] = "e_t as given"
    source: ClassVar[str] = ""
    turns_step: ClassVar[bool] = False

    def apply(self, inputs: Inputs) -> Inputs:
        """Unchanged."""
        return inputs


@CONTROL.register
@final
@dataclass(frozen=True, slots=True)
class NoWrite:
    """The memory stays at its start: what convolution, gates and projections can do alone.

    A memory that is solved for stays empty and reads 0.
    """

    name: ClassVar[str] = "no_write"
    equation: ClassVar[str] = "e_t = 0, a_t = 1:  W_t = W_0"
    source: ClassVar[str] = "reviews of Miras: negative controls"
    turns_step: ClassVar[bool] = False

    def apply(self, inputs: Inputs) -> Inputs:
        """Step 0 and keep 1."""
        return inputs._replace(step=torch.zeros_like(inputs.step), log_keep=torch.zeros_like(inputs.log_keep))


@CONTROL.register
@final
@dataclass(frozen=True, slots=True)
class Ascent:
    """The inner step climbs the loss instead of descending it: does the attentional bias act as a loss at all?

    Every step of a token is turned, that of erase_write's erase too: what it finds is added again, not taken away.
    """

    name: ClassVar[str] = "ascent"
    equation: ClassVar[str] = "e_t -> -e_t"
    source: ClassVar[str] = "reviews of Miras: negative controls"
    turns_step: ClassVar[bool] = True

    def apply(self, inputs: Inputs) -> Inputs:
        """The step's sign flipped."""
        return inputs.stepped(-1.0)
