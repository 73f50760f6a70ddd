"""What a negative control is: a transformation of what a memory layer is given; and that, as one tuple."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from miras_search.space.gates import product_keys, times
from miras_search.space.lazy import LazyModule
from miras_search.space.option import Axis, Facts

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from miras_search.space.design import DesignPoint
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
    """A transformation of the memory's inputs. `Unchanged` has the answers of one that changes nothing else."""

    turns_step: ClassVar[bool]  # whether steps change their sign
    model: ClassVar[Mapping[str, int]]  # settings of the model around the memory that it changes

    @property
    def repeats(self) -> int:
        """How often a token's writes are made, one round after the other."""

    def keys(self, projected: Tensor, first: int) -> Tensor:
        """What stands for the projected keys [B,N,H,D], before feature map and length, counted from the first one."""

    def apply(self, inputs: Inputs) -> Inputs:
        """The inputs with the control's change."""

    def problem(self, point: DesignPoint) -> str | None:
        """Why it makes no sense on this point, or changes nothing; None where it does."""

    def simplest(self, point: DesignPoint) -> DesignPoint:
        """The point, which is under this control, without what makes no difference to it there; its trained
        parameters stay as many and as they were.
        """


CONTROL: Axis[Control] = Axis("control", "what is taken away or turned round, to refute a claim")


class Unchanged:
    """The answers of a control that leaves everything but the memory's inputs as it is."""

    __slots__ = ()

    turns_step: ClassVar[bool] = False
    model: ClassVar[Mapping[str, int]] = {}

    @property
    def repeats(self) -> int:
        """Once."""
        return 1

    def keys(self, projected: Tensor, first: int) -> Tensor:
        """They."""
        return projected

    def problem(self, point: DesignPoint) -> str | None:
        """It goes with all."""
        return None

    def simplest(self, point: DesignPoint) -> DesignPoint:
        """As it is."""
        return point
