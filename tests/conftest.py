"""Set up before anything imports triton: without a CUDA device its kernels run in the CPU interpreter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Triton reads the variable when its kernels are decorated. Device files answer without importing torch, which most
# rooms' tests do not need, and without starting CUDA in a process that may fork.
if not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/dxg").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run in several processes, the engine's stay in one: they share one Ray."""
    for item in items:
        if item.path.parent.name == "engine":
            item.add_marker(pytest.mark.xdist_group("engine"))
