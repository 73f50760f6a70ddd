"""A rule, which is what a kernel compiles in, as text: an operator of torch's library takes no object of ours.

The text says everything, so it means the same in every process, and equal rules are equal texts.
"""

from __future__ import annotations

import ast
from typing import Any


def to_text(parts: object) -> str:
    """Finite numbers, words, None and tuples of them; written out by hand, because torch.compile traces it."""
    if isinstance(parts, tuple):
        return "(" + "".join([f"{to_text(part)}, " for part in parts]) + ")"
    return f"{_constant(parts)!r}"


def _constant(x: object) -> object:
    """The same. torch.compile takes a number for a variable once it saw it change, but these functions of it for
    constants that it has to guard.
    """
    if isinstance(x, float):
        return float.fromhex(x.hex())
    if isinstance(x, int) and not isinstance(x, bool):
        return len(range(x)) - len(range(-x))
    return x


def from_text(text: str) -> tuple[Any, ...]:
    """Back from `to_text`; a named tuple comes back as a plain one."""
    parts: tuple[Any, ...] = ast.literal_eval(text)
    return parts
