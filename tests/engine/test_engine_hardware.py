"""The name under which a device is stored."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from miras_search.engine import hardware

INTEL = "processor\t: {}\nmodel name\t: Intel(R) Xeon(R) Processor\nflags\t\t: fpu sse2 avx2 {}\n\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd evtstrm\nCPU implementer\t: 0x41\n"


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "processor", lambda: "armv8")
    monkeypatch.setattr(hardware, "named", hardware.named.__wrapped__)  # what was asked before is remembered
    return tmp_path / "cpuinfo"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (INTEL.format(0, "avx512f") + INTEL.format(1, "avx512f"), "cpu Intel(R) Xeon(R) Processor AVX512"),
        (INTEL.format(0, "fma"), "cpu Intel(R) Xeon(R) Processor AVX2"),
        (ARM, "cpu armv8 NEON"),
        ("", "cpu armv8"),
        (None, "cpu armv8"),
        (f"model name : {'very ' * 30}long", f"cpu {'very ' * 30}"[:60]),
    ],
)
def test_a_processor_is_its_model_and_its_widest_vectors(cpuinfo: Path, text: str | None, name: str) -> None:
    if text is not None:
        cpuinfo.write_text(text)
    assert hardware.named("cpu") == name


def test_a_gpu_that_is_not_there_has_no_name(cpuinfo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert hardware.named("cuda") == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", {"cuda:1": "NVIDIA H200"}.__getitem__)
    assert hardware.named("cuda:1") == "cuda:1 NVIDIA H200"


def test_a_gpu_that_cannot_be_asked_is_left_to_the_training(cpuinfo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: str) -> str:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", broken)
    assert hardware.named("cuda") == "cuda"
