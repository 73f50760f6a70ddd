"""Modules that load on first use, so that names, equations, rules and hashes never pay for torch or triton.

A proxy of our own rather than `importlib.util.LazyLoader`: that one registers the unloaded module in `sys.modules`,
where other libraries look to see whether torch is in use.
"""

from __future__ import annotations

import importlib
import types


class LazyModule(types.ModuleType):
    """A stand-in for a module: imports it at the first attribute access and keeps what it hands out."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)
        return value
