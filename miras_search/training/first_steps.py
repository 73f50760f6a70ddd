"""The first steps of a training on compiled kernels, taken in torch as well and compared.

A kernel is compiled anew for every shape, device and version of the compiler, and compilers err: on one device a
backward was wrong at one size of block alone. Tests of other shapes elsewhere do not show that, and a training on wrong
gradients looks like a poor design. So the loss and every parameter's gradient of the first steps are computed a second
time, from the same parameters and batches, with chunkwise torch in the kernels' place. The training goes on with the
kernels' own numbers, which nothing here changes.

Some designs amplify rounding by orders of magnitude, and then two right ways differ. So before a kernel is called
wrong, torch is asked again with inputs of the memories off by a millionth, in up to `WAVES` ways: what one of them
changes, rounding explains. One alone is a poor witness where a few tokens make the whole gradient.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from miras_search.errors import MirasError
from miras_search.kernels import dispatch

log = logging.getLogger(__name__)
STEPS = 2
TOLERANCE = {"float32": 2e-3, "bfloat16": 2e-2}
"""Largest RMS of a difference, as a share of what is compared; by the precision of the products around the memory."""
FLOOR = 1e-3
"""A gradient smaller than this share of the whole gradient (both RMS) is compared as if it were so large: it is the
rest of a sum whose terms cancel, and carries their rounding."""
ROUNDING = 30
"""How many times the change by a millionth may be exceeded: a parameter of two numbers may have been lucky."""
WAVES = 4
"""In how many ways inputs are shaken at most; a second is asked for where the first explains too little."""
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
        self.taken = 0
        """How many steps were compared, or could not be."""
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
        return self.taken < STEPS and bool(self._kernels)

    def compare(self, found: Sequence[Found], again: Callable[[], Sequence[Found]]) -> None:
        """Compare what each model of a step found with what `again` finds in torch.

        Raises `KernelMismatch` with the worst that rounding does not explain. A model for which torch itself finds a
        number that is not finite diverges, which the training records.
        """
        self.taken += 1
        try:
            self._compare(found, again)
        except torch.OutOfMemoryError:  # torch keeps every token's state where a kernel keeps a few
            self.taken = STEPS
            kernels = " and ".join(sorted(self._kernels))
            log.warning("%s: torch's first steps do not fit on the device: %s is not compared", self._design, kernels)
        finally:
            if torch.cuda.is_initialized():
                torch.cuda.reset_peak_memory_stats()  # torch took more than the kernel: not the training's peak

    def _compare(self, found: Sequence[Found], again: Callable[[], Sequence[Found]]) -> None:
        with dispatch.allowed("torch"):
            expected = again()
        shares = [differences(one, other) for one, other in zip(found, expected, strict=True)]
        largest = max((share for one in shares for share in one.values()), default=None)
        if largest is not None:
            self.worst = max(largest, self.worst or 0.0)
        if largest is not None and largest > self._tolerance:
            rounded: list[dict[str, float]] = [{} for _ in shares]
            for wave in range(1, WAVES + 1):
                with dispatch.allowed("torch"), dispatch.shaken(wave):
                    shaken = again()
                for changes, one, other in zip(rounded, shaken, expected, strict=True):
                    for name, change in differences(one, other).items():
                        changes[name] = max(change, changes.get(name, 0.0))
                errors = [error for error in map(self._mismatch, shares, rounded) if error is not None]
                if not errors:
                    return
            raise errors[0]

    def _mismatch(self, shares: Mapping[str, float], changes: Mapping[str, float]) -> KernelMismatch | None:
        """The worst share of a model that its rounding does not explain, as an error; None where there is none."""
        for name, share in sorted(shares.items(), key=lambda item: -item[1]):
            explained = ROUNDING * changes.get(name, math.inf)
            if share > max(self._tolerance, explained):
                kernels, what = " and ".join(sorted(self._kernels)), f"the gradient of {name}" if name else "the loss"
                return KernelMismatch(
                    f"resources.kernels: '{kernels}' was taken for {self._design}, but in step {self.taken} {what} "
                    f"differs from torch's by {share:.2g} of its RMS, where {self._tolerance:g} is allowed and "
                    f"rounding explains {explained:.2g}: set resources.kernels: torch"
                )
        return None


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
