"""A design point by the Triton kernel and by the recurrence: inputs, comparison, poisoned buffers."""

from __future__ import annotations

import torch
from memories import Case, case, evaluate
from torch import Tensor
from triton_device import DEVICE

from miras_search.kernels import dispatch, recurrence
from miras_search.kernels.state import State
from miras_search.space.design import DesignPoint


def assert_near(found: list[Tensor], expected: list[Tensor], ratio: float = 1e-5) -> None:
    """RMS of the difference over RMS of the expected value, tensor by tensor; a NaN compares false."""
    assert len(found) == len(expected)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        scale = b.double().square().mean().sqrt()
        error = (a.double() - b.double()).square().mean().sqrt()
        assert error <= ratio * scale + 1e-7, (i, float(error), float(scale))


def assert_is_the_recurrence(
    point: DesignPoint, given: Case, outputs: float = 1e-5, gradients: float = 1e-5
) -> tuple[State, State]:
    """The kernel's outputs, final states and gradients within these ratios; both states."""
    expected, wanted, final = evaluate(recurrence.run, point, given)
    found, got, state = evaluate(dispatch.run_triton, point, given)
    assert_near(found, expected, outputs)
    assert_near(got, wanted, gradients)
    return state, final


def given_of(point: DesignPoint, tokens: int, key_dim: int = 5, value_dim: int = 7, batch: int = 1) -> Case:
    """Sequences of two heads in float32, where the kernel runs."""
    sizes = {"batch": batch, "heads": 2, "key_dim": key_dim, "value_dim": value_dim}
    given = case(point, tokens, seed=1, **sizes, dtype=torch.float32)
    return given.with_leaves([x.to(DEVICE) for x in given.leaves()])
