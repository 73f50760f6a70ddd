"""What holds for every design point, searched for counterexamples: cuts, causality, streaming, chunks of one token."""

from __future__ import annotations

import dataclasses

import torch
from covering import KEY_DIM, VALUE_DIM, covering
from hypothesis import given, settings
from hypothesis import strategies as st
from memories import case, worst
from torch import Tensor

from miras_search.kernels import chunkwise, recurrence
from miras_search.kernels.state import State
from miras_search.space.design import DesignPoint
from miras_search.space.execution import Gradient

POINTS = [one.point for one in covering()[0]]
LENGTH = 9
points = st.sampled_from(POINTS)
seeds = st.integers(0, 2**31 - 1)
# a counterexample is the same on every machine, and a slow one is no failure
searched = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def in_pieces(point: DesignPoint, seed: int, cuts: list[int]) -> tuple[Tensor, State]:
    """The outputs of the segments between the cuts, joined, and the last state."""
    drawn = case(point, LENGTH, seed=seed, batch=1, key_dim=KEY_DIM, value_dim=VALUE_DIM)
    state, outputs = None, []
    for first, last in zip([0, *cuts], [*cuts, LENGTH], strict=True):
        y, state = chunkwise.run(point, drawn.inputs.tokens(first, last), drawn.start, drawn.static, state)
        outputs.append(y)
    assert state is not None
    return torch.cat(outputs, 1), state


@searched
@given(point=points, seed=seeds, cuts=st.sets(st.integers(1, LENGTH - 1)))
def test_any_cut_gives_the_whole(point: DesignPoint, seed: int, cuts: set[int]) -> None:
    whole, final = in_pieces(point, seed, [])
    cut, state = in_pieces(point, seed, sorted(cuts))
    assert state.position == final.position
    assert worst([cut, *state.tensors().values()], [whole, *final.tensors().values()]) < 1e-8


@searched
@given(point=points, seed=seeds)
def test_token_by_token_is_the_whole(point: DesignPoint, seed: int) -> None:
    whole, final = in_pieces(point, seed, [])
    streamed, state = in_pieces(point, seed, list(range(1, LENGTH)))
    assert worst([streamed, *state.tensors().values()], [whole, *final.tensors().values()]) < 1e-8


@searched
@given(point=points, seed=seeds, seen=st.integers(1, LENGTH - 1))
def test_no_output_depends_on_a_later_token(point: DesignPoint, seed: int, seen: int) -> None:
    """Bit for bit at equal length."""
    drawn = case(point, LENGTH, seed=seed, batch=1, key_dim=KEY_DIM, value_dim=VALUE_DIM)
    other = case(point, LENGTH, seed=seed ^ 1, batch=1, key_dim=KEY_DIM, value_dim=VALUE_DIM)
    parts = [drawn.inputs.tokens(0, seen), other.inputs.tokens(seen, LENGTH)]
    spliced = type(drawn.inputs)(
        *(None if a is None or b is None else torch.cat([a, b], 1) for a, b in zip(*parts, strict=True))
    )
    y, _ = chunkwise.run(point, drawn.inputs, drawn.start, drawn.static)
    z, _ = chunkwise.run(point, spliced, drawn.start, drawn.static)
    assert torch.equal(y[:, :seen], z[:, :seen])


@searched
@given(point=points, seed=seeds, sweeps=st.sampled_from([0, 1, 3]))
def test_chunks_of_one_write_are_exact(point: DesignPoint, seed: int, sweeps: int) -> None:
    """With one token a chunk and one write a token every mode is the recurrence's."""
    if not point.descends or point.algorithm.writes > 1:
        return
    run = dataclasses.replace(point.execution, chunk=1, link_refresh="token")
    exact = dataclasses.replace(point, execution=dataclasses.replace(run, gradient=Gradient()))
    chunked = dataclasses.replace(point, execution=dataclasses.replace(run, gradient=Gradient(sweeps)))
    drawn = case(point, 5, seed=seed, batch=1, key_dim=KEY_DIM, value_dim=VALUE_DIM)
    expected, _ = recurrence.run(exact, drawn.inputs, drawn.start, drawn.static)
    found, _ = chunkwise.run(chunked, drawn.inputs, drawn.start, drawn.static)
    assert worst([found], [expected]) < 1e-8


@searched
@given(point=points, seed=seeds)
def test_the_canonical_spelling_is_the_same_function(point: DesignPoint, seed: int) -> None:
    """Where the canonical form drops no gate, the same inputs give the same outputs."""
    simple = point.canonical()
    assert simple.hash == point.hash
    assert simple.canonical() == simple
    if set(simple.gates) != set(point.gates) or simple.scopes != point.scopes:
        return
    drawn = case(point, LENGTH, seed=seed, batch=1, key_dim=KEY_DIM, value_dim=VALUE_DIM)
    if simple.memory.layers(KEY_DIM, VALUE_DIM) != point.memory.layers(KEY_DIM, VALUE_DIM):
        return
    y, _ = recurrence.run(point, drawn.inputs, drawn.start, drawn.static)
    z, _ = recurrence.run(simple, drawn.inputs, drawn.start, drawn.static)
    assert worst([z], [y]) < 1e-8
