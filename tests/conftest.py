"""Set up before anything imports triton: without a CUDA device its kernels run in the CPU interpreter."""

from __future__ import annotations

import os
from pathlib import Path

# Triton reads the variable when its kernels are decorated. Device files answer without importing torch, which most
# rooms' tests do not need, and without starting CUDA in a process that may fork.
if not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/dxg").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
