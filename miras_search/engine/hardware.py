"""What computes: the name under which a device is stored, because arithmetic rounds otherwise on another processor.

A training makes much of a rounding: with one tuned learning rate of two seeds, bias_full.yaml's base was 0.53 on one
processor and 0.75 on another (studies/LOG.md). So a table says where jobs of one comparison ran on unlike devices.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
VECTORS = {"avx512f": "AVX512", "avx2": "AVX2", "asimd": "NEON"}  # widest first: libraries choose their kernels by it
LONGEST = 60  # characters, so that the name of a pack fits its column


@cache
def named(device: str) -> str:
    """`cpu AMD EPYC 7B13 AVX2` for `cpu`, `cuda NVIDIA H200` for `cuda`; as it was where nothing is known of it."""
    found = _gpu(device) if device.startswith("cuda") else _processor()
    return f"{device} {found}"[:LONGEST].rstrip()


def _gpu(device: str) -> str:
    try:
        import torch  # a training on a GPU loads it anyway

        return torch.cuda.get_device_name(device) if torch.cuda.is_available() else ""
    except (ImportError, RuntimeError):  # the training will say what is wrong with the device, as a job that failed
        return ""


def _processor() -> str:
    try:
        first = CPUINFO.read_text().partition("\n\n")[0]
    except OSError:
        return platform.processor()
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    flags = (told.get("flags") or told.get("Features") or "").split()
    vectors = next((name for flag, name in VECTORS.items() if flag in flags), "")
    return " ".join(filter(None, [told.get("model name") or platform.processor(), vectors]))
