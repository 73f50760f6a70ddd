"""For tests of compiled steps: where they can run, and what stands in the compiler's place where it would take long."""

from __future__ import annotations

import pytest
from torch import Tensor

from miras_search import compiler
from miras_search.training.compiled import Descent, traced

NEEDS_COMPILER = pytest.mark.skipif(bool(compiler.problem()), reason=compiler.problem())


def as_recorded(function: Descent, inputs: tuple[Tensor, ...]) -> Descent:
    """The recorded graph as it is, for `compiled._made`."""
    graph = traced(function, *inputs)
    return lambda *inputs: graph(*inputs)
