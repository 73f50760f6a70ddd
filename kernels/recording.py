"""Whether operators are being recorded for torch's compiler, to which some of them mean something else.

Results in the rows of one large tensor cost nothing where they are written. A recorded graph has no writing in place:
every row would become a copy of the whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch

_on: ContextVar[bool] = ContextVar("recording", default=False)


def on() -> bool:
    """Whether this call is recorded, or traced by torch.compile, which cannot read the variable."""
    return torch.compiler.is_compiling() or _on.get()


@contextlib.contextmanager
def recording() -> Iterator[None]:
    """While active, `on` says so."""
    token = _on.set(True)
    try:
        yield
    finally:
        _on.reset(token)
