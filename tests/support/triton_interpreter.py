"""Triton's interpreter without the half of its time that it spends on preparing what is prepared.

At each call of a helper it replaces all functions of triton.language by interpreted ones, though the launch around it
has replaced them already. A launch is left as it is, and so is the first call of a helper of Triton's own, whose names
are those of triton.language.core: they stay replaced ever after.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

from triton.runtime import interpreter


def _is_prepared(function: FunctionType) -> bool:
    language = interpreter.tl
    if function.__globals__.get("tl") is language:
        return True
    return not language.core.is_builtin(language.core.load)


def _call(self: Any, *args: object, **kwargs: object) -> object:
    return (self.rewrite() if _is_prepared(self.fn) else self.plain_call)(*args, **kwargs)


def quicken() -> None:
    """Have helpers called as they are. Does nothing to a Triton whose interpreter is built otherwise."""
    of = getattr(interpreter, "InterpretedFunction", None)
    if of is None or not hasattr(of, "rewrite") or hasattr(of, "plain_call"):
        return
    of.plain_call = of.__call__
    of.__call__ = _call
