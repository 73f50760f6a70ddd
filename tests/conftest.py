"""Set up before anything imports triton or starts a process.

Without a CUDA device Triton's kernels run in the CPU interpreter; and signals mean what they mean in a terminal,
however the tests were started.
"""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

# Triton reads the variable when its kernels are decorated. Device files answer without importing torch, which most
# rooms' tests do not need, and without starting CUDA in a process that may fork.
if not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/dxg").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# `nohup make test` and `make test &` in a script ignore signals, children inherit that, and a run respects it: those
# that are interrupted here would never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection() -> None:
    """Next to nothing that collecting makes is garbage, and to look for it takes a tenth of the time."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Thousands of tests and all modules stay to the end: each training collects garbage, and would walk them all."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """What was set apart is collected at exit again: libraries that count their objects would tell of leaks."""
    gc.unfreeze()
