"""Where tests of Triton kernels run: without a CUDA device in the CPU interpreter (tests/conftest.py), else on it.

Without Triton the modules that import this one are skipped.
"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from miras_search.kernels.triton.tiles import INTERPRETED

DEVICE = "cpu" if INTERPRETED else "cuda"
NEEDS_CUDA = pytest.mark.skipif(
    INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device and Triton out of its interpreter"
)
RUNS = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="needs TRITON_INTERPRET=1 or a CUDA device"
)
