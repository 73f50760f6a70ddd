"""The matrix products of a piece of work: written down while it runs, and replayed alone as a floor of its time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Call = tuple[Callable[..., Tensor], tuple[Tensor, ...]]


@torch.no_grad()
def replay(calls: Sequence[Call]) -> None:
    """Run the products alone."""
    for product, operands in calls:
        product(*operands)


class Layout(NamedTuple):
    """What a tensor looks like in memory."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> Layout:
        """The layout of a tensor."""
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)

    def make(self) -> Tensor:
        """Random numbers in this layout, an expanded one included."""
        extent = 1 + sum((size - 1) * stride for size, stride in zip(self.size, self.stride, strict=True))
        return torch.randn(extent, dtype=self.dtype, device=self.device).as_strided(self.size, self.stride)


class Products(TorchDispatchMode):
    """While active, writes down every matrix product: its operator and the layouts of its operands."""

    aten = torch.ops.aten
    SEEN: ClassVar = {  # in place, or into a tensor that is there, it is the same product
        aten.addmm_.default: aten.addmm.default,
        aten.baddbmm_.default: aten.baddbmm.default,
        **{way: op.default for op in (aten.mm, aten.addmm, aten.bmm, aten.baddbmm) for way in (op.default, op.out)},
    }

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.seen: Counter[tuple[Callable[..., Tensor], tuple[Layout, ...]]] = Counter()

    def __torch_dispatch__(
        self,
        func: Callable[..., Tensor],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run the operator; a matrix product leaves its layouts behind."""
        if func in self.SEEN:
            self.seen[self.SEEN[func], tuple(Layout.of(x) for x in args if isinstance(x, Tensor))] += 1
        return func(*args, **(kwargs or {}))

    @property
    def flop(self) -> int:
        """Multiplications and additions of all products seen."""
        return sum(
            2 * count * math.prod(found[-2].size) * found[-1].size[-1] for (_, found), count in self.seen.items()
        )

    def calls(self) -> list[Call]:
        """The same products, on operands of their own."""
        found: list[Call] = []
        for (func, layouts), count in self.seen.items():
            found += [(func, tuple(layout.make() for layout in layouts))] * count
        return found
