"""Chunkwise torch against the recurrence on a pairwise-covering sample of all options, lengths and chunks.

Outputs, final state and all gradients: to 1e-9 in float64, to 1e-4 in float32. A design that amplifies rounding over
its tokens cannot be held to that: there the recurrence, run again on inputs that are off by one rounding, says what is
lost whatever the order of the sums, and chunkwise may lose no more than a few times that.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from covering import KEY_DIM, VALUE_DIM, Covered, covering, pairs_of, spellings, wanted
from memories import Case, case, evaluate, worst
from torch import Tensor

from miras_search.kernels import chunkwise, recurrence
from miras_search.space.design import AXES, CHOICES

SAMPLE, IMPOSSIBLE = covering()
NAMES = [f"{i}-{one.point.hash}-{one.tokens}" for i, one in enumerate(SAMPLE)]


def given_of(i: int, one: Covered) -> Case:
    return case(one.point, one.tokens, seed=i, batch=1, key_dim=KEY_DIM, value_dim=VALUE_DIM)


def nudged(given: Case) -> Case:
    """Every input off by about one rounding."""
    draw = torch.Generator().manual_seed(7)
    leaves = [
        x * (1 + torch.finfo(x.dtype).eps * torch.randn(x.shape, generator=draw, dtype=x.dtype)) for x in given.leaves()
    ]
    return given.with_leaves(leaves)


def error(found: tuple[list[Tensor], list[Tensor]], expected: tuple[list[Tensor], list[Tensor]]) -> float:
    """The worst of outputs, state and gradients; infinite where NaNs are not in the same places."""
    pairs = [pair for kind in zip(found, expected, strict=True) for pair in zip(*kind, strict=True)]
    if any(not torch.equal(a.isnan(), b.isnan()) for a, b in pairs):
        return float("inf")
    finite = [(a.nan_to_num(), b.nan_to_num()) for a, b in pairs]
    return worst([a for a, _ in finite], [b for _, b in finite])


@pytest.mark.parametrize("i", range(len(SAMPLE)), ids=NAMES)
def test_chunkwise_equals_the_recurrence(i: int) -> None:
    one = SAMPLE[i]
    given = given_of(i, one)
    *expected, expected_state = evaluate(recurrence.run, one.point, given)
    *found, state = evaluate(chunkwise.run, one.point, given)
    assert state.position == expected_state.position
    assert list(state.tensors()) == list(expected_state.tensors())
    loss = error(found, expected)
    if loss > 1e-9:
        *again, _ = evaluate(recurrence.run, one.point, nudged(given))
        unavoidable = error(again, expected)
        assert math.isfinite(unavoidable)
        if unavoidable > 1:  # it does not stay bounded: rounding alone leaves no digit, so only NaNs can be compared
            assert math.isfinite(loss)
        else:
            assert loss < 20 * unavoidable, one.chosen


@pytest.mark.parametrize("i", range(0, len(SAMPLE), 4), ids=NAMES[::4])
def test_chunkwise_rounds_no_worse_in_float32(i: int) -> None:
    one = SAMPLE[i]
    given = given_of(i, one)
    single = given.with_leaves([x.float() for x in given.leaves()])
    *expected, _ = evaluate(recurrence.run, one.point, given)
    *found, _ = evaluate(chunkwise.run, one.point, single)
    loss = error(found, expected)
    if loss > 1e-4:
        *slow, _ = evaluate(recurrence.run, one.point, single)
        unavoidable = error(slow, expected)
        assert math.isfinite(unavoidable)
        assert loss < 3 * unavoidable, one.chosen


def test_every_pair_of_options_is_in_the_sample_or_refused() -> None:
    seen = set().union(*(pairs_of(one.chosen) for one in SAMPLE))
    assert seen | IMPOSSIBLE == set(wanted())
    assert not seen & IMPOSSIBLE
    # only the four choices and the scope of the step exclude one another, never an execution, a chunk or a length
    assert {(i, j) for i, _, j, _ in IMPOSSIBLE} <= {*itertools.combinations(range(5), 2)}


def test_the_sample_names_every_option_that_there_is() -> None:
    for i, axis in enumerate(CHOICES):
        assert set(spellings()[i]) == set(AXES[axis].options)
