"""The first steps of a training on compiled kernels, taken in torch as well and compared.

A kernel is compiled anew for every shape, device and version of the compiler, and compilers err: on one device a
backward was wrong at one size of block alone. Tests of other shapes elsewhere do not show that, and a training on wrong
gradients looks like a poor design. So the loss and every parameter's gradient of the first steps are computed a second
time, from the same parameters and batches, with chunkwise torch in the kernels' place. The training goes on with the
kernels' own numbers, which nothing here changes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from miras_search.errors import MirasError
from miras_search.kernels import dispatch

STEPS = 2
TOLERANCE = {"float32": 2e-3, "bfloat16": 2e-2}
"""Largest RMS of a difference, as a share of what is compared; by the precision of the products around the memory."""
FLOOR = 1e-3
"""A gradient smaller than this share of the whole gradient (both RMS) is compared as if it were so large: it is the
rest of a sum whose terms cancel, and carries their rounding."""
LOSS = ""
"""The name of the loss among the gradients' names."""

Found = Mapping[str, Tensor]
"""A model's loss and the gradient of each parameter, by name."""


class KernelMismatch(MirasError):
    """A compiled kernel and the torch path do not agree about a training's first steps."""


class FirstSteps:
    """How many steps of a training or a pack are left to compare, and the largest difference so far."""

    def __init__(self, design: str, precision: str) -> None:
        self._design, self._tolerance = design, TOLERANCE[precision]
        self._taken = 0
        self._kernels: set[str] = set()
        self.worst: float | None = None
        """The largest share by which anything differed; None as long as no kernel has run."""

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Around the forward pass of a step: sees whether kernels run."""
        with dispatch.watched() as self._kernels:
            yield

    @property
    def due(self) -> bool:
        """Whether the step that was watched is to be compared."""
        return self._taken < STEPS and bool(self._kernels)

    def compare(self, pairs: Iterable[tuple[Found, Found]]) -> None:
        """Compare what the kernels gave in a step with what torch gives, model by model.

        Raises `KernelMismatch` with the worst of it. A model for which torch itself finds a number that is not finite
        diverges, which the training records.
        """
        self._taken += 1
        for found, expected in pairs:
            shares = differences(found, expected)
            if not shares:
                continue
            name = max(shares, key=lambda name: shares[name])
            self.worst = max(shares[name], self.worst or 0.0)
            if self.worst > self._tolerance:
                kernels, what = " and ".join(sorted(self._kernels)), f"the gradient of {name}" if name else "the loss"
                raise KernelMismatch(
                    f"resources.kernels: auto took '{kernels}' for {self._design}, but in step {self._taken} {what} "
                    f"differs from torch's by {self.worst:.2g} of its RMS, where {self._tolerance:g} is allowed: set "
                    "resources.kernels: torch"
                )


def differences(found: Found, expected: Found) -> dict[str, float]:
    """RMS of found - expected over the RMS of expected by name, infinite where found is not finite; empty where
    expected is not finite.
    """
    squares, off = (
        torch.stack([x.detach().double().square().sum() for x in tensors]).cpu()
        for tensors in (expected.values(), [found[name] - x for name, x in expected.items()])
    )
    if not bool(squares.isfinite().all()):
        return {}
    counts = torch.tensor([x.numel() for x in expected.values()], dtype=torch.float64)
    gradients = torch.tensor([name != LOSS for name in expected])
    whole = squares[gradients].sum() / counts[gradients].sum()
    size = (squares / counts).clamp(min=torch.where(gradients, whole * FLOOR**2, 0.0))
    shares = (off / counts / size).sqrt().tolist()
    # off 0: where both are 0 the share is 0 / 0
    return {
        name: 0.0 if not away else share if math.isfinite(share) else math.inf
        for name, share, away in zip(expected, shares, off.tolist(), strict=True)
    }
