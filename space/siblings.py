"""Load every module of a package, so that an option in a file of its own is registered by being there."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable


def load_siblings(package: str, path: Iterable[str]) -> None:
    """Import all modules of the package in order of their names."""
    for module in sorted(found.name for found in pkgutil.iter_modules(path)):
        importlib.import_module(f"{package}.{module}")
