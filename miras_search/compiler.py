"""The C++ compiler that torch's compiler makes a CPU's code with. Plain data, no torch: the driver asks as well."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from miras_search.errors import EnvironmentProblem


def name() -> str:
    """What torch calls."""
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


def check() -> None:
    """Raise EnvironmentProblem where nothing can be compiled here, as a study asks for."""
    if missing := problem():
        raise EnvironmentProblem(f"resources.kernels: compiled: {missing}, or take auto")


def problem() -> str:
    """Why nothing can be compiled here, with the cure; empty where it can."""
    if shutil.which(name()) is None:
        return f"no C++ compiler '{name()}' on the PATH: install it, name another in CXX"
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if not headers.exists():
        return f"Python's headers are not there ({headers}): install Python's development package"
    return ""
