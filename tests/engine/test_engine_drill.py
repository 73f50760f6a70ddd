"""A small drill with each kind of fault that one machine has; `make drill` is the large one, on two Ray nodes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_random_faults_change_nothing_that_is_found() -> None:
    script = Path(__file__).with_name("engine_drill.py")
    words = ["--local", "--jobs", "4", "--faults", "6", "--steps", "150", "--lock", "1"]
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=False)
    *checks, last = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert last == "11 passed, 0 failed"
    assert all(line.startswith("ok ") for line in checks) and len(checks) == 11
