"""Wall time of work on a device."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch


def seconds_of(device: torch.device, work: Sequence[Callable[[], object]]) -> float:
    """Mean time of the pieces of work, run one after the other."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for piece in work:
        piece()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / len(work)
