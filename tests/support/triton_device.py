"""Where tests of Triton kernels run: without a CUDA device in the CPU interpreter (tests/conftest.py), else on it; and
how what they do not write is found.

Without Triton the modules that import this one are skipped.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from miras_search.kernels.triton.tiles import INTERPRETED

if INTERPRETED:
    from triton_interpreter import quicken

    quicken()

DEVICE = "cpu" if INTERPRETED else "cuda"
NEEDS_CUDA = pytest.mark.skipif(
    INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device and Triton out of its interpreter"
)
RUNS = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="needs TRITON_INTERPRET=1 or a CUDA device"
)


def poison(patch: pytest.MonkeyPatch) -> None:
    """A cell that a kernel forgets to write must show up as NaN, not as whatever the allocator left."""
    for name in ("empty", "empty_like"):
        plain = getattr(torch, name)

        def poisoned(*args: object, plain: Callable[..., Tensor] = plain, **kwargs: object) -> Tensor:
            tensor = plain(*args, **kwargs)
            if tensor.is_floating_point():
                tensor.detach().fill_(float("nan"))  # checkpointing makes a leaf of its own
            return tensor

        patch.setattr(torch, name, poisoned)
