"""Gates by channel: where they act, written as plain loops, and chunkwise against the recurrence."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from memories import case, evaluate, worst
from torch import Tensor

from miras_search.kernels import chunkwise, recurrence
from miras_search.kernels.channels import over_layer
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.memory import Layer
from miras_search.space.rules import violations

SCOPES = ("head", "key", "value", "key_value")
MEMORIES: list[object] = [
    "matrix",
    "vector",
    {"matrix": {"residual": True, "norm": "layer", "affine": True}},
    {"mlp": {"residual": False, "expansion": 2}},
    {"gated_mlp": {"expansion": 2, "residual": False}},
]
THRESHOLD = {"source": "data", "squash": "softplus", "value": 1.0, "scope": "value"}
BIASES: list[object] = [
    "dot",
    "l2",
    {"l2": {"scale": "full"}},
    "kl",
    {"huber": {"form": "coordinate", "delta": THRESHOLD}},
]
EXECUTIONS: list[object] = [
    {"gradient": gradient, "gradient_at": at, "chunk": 4}
    for gradient in ("exact", "frozen", {"refined": 2})
    for at in ("previous", "decayed")
]


def sample(count: int, seed: int) -> list[DesignPoint]:
    """Random points whose gates have channels."""
    keeps = [{"l2": {"keep": {"scope": scope}}} for scope in SCOPES]
    rows = {"kl": {"keep": {"scope": "key"}, "slice": "row"}}
    algorithms: list[object] = ["gd", {"multi_step": {"writes": 2}}]
    algorithms += [{"momentum": {"momentum": {"scope": scope}}} for scope in SCOPES]
    grid = list(itertools.product(MEMORIES, BIASES, [*keeps, rows], algorithms, SCOPES, EXECUTIONS))
    found = []
    for memory, bias, retention, algorithm, step, execution in random.Random(seed).sample(grid, len(grid)):
        point = DesignPoint.parse(
            {
                "memory": memory, "bias": bias, "retention": retention, "algorithm": algorithm,
                "step": {"scope": step}, "execution": execution,
            }
        )  # fmt: skip
        if not violations(point, 3, 3):
            found.append(point)
        if len(found) == count:
            break
    return found


SAMPLE = list(enumerate(sample(100, seed=20261121)))


@pytest.mark.parametrize(("i", "point"), SAMPLE, ids=[f"{i}-{p.hash}" for i, p in SAMPLE])
def test_chunkwise_equals_the_recurrence(i: int, point: DesignPoint) -> None:
    given = case(point, tokens=(1, 4, 7, 10)[i % 4], seed=i, value_dim=4)
    expected, expected_gradients, expected_state = evaluate(recurrence.run, point, given)
    found, gradients, state = evaluate(chunkwise.run, point, given)
    assert list(state.tensors()) == list(expected_state.tensors())
    assert worst(found, expected) < 1e-9
    assert worst(gradients, expected_gradients) < 1e-9


@pytest.mark.parametrize("i", range(0, 100, 9))
def test_a_sequence_may_be_cut_anywhere(i: int) -> None:
    point, tokens = SAMPLE[i][1], 10
    given = case(point, tokens, seed=i, value_dim=4)
    whole, final = chunkwise.run(point, given.inputs, given.start, given.static)
    state, pieces = None, []
    for first, last in ((0, 3), (3, 4), (4, 10)):
        piece = given.inputs.tokens(first, last)
        y, state = chunkwise.run(point, piece, given.start, given.static, state)
        pieces.append(y)
    assert state is not None
    assert worst([torch.cat(pieces, 1), *state.tensors().values()], [whole, *final.tensors().values()]) < 1e-9


def delta_loop(inputs: Inputs, start: Tensor, keep: Tensor, step: Tensor) -> Tensor:
    """W = keep * W - step * k^T (k W - v) with keep and step spread over K x V by the caller: [B,T,H,K,V]."""
    batch, tokens = inputs.q.shape[:2]
    w = start.expand(batch, *start.shape)
    rows = []
    for t in range(tokens):
        k = inputs.k[:, t].unsqueeze(-2)
        w = keep[:, t] * w - step[:, t] * (k.mT @ (k @ w - inputs.v[:, t].unsqueeze(-2)))
        rows.append((inputs.q[:, t].unsqueeze(-2) @ w).squeeze(-2))
    return torch.stack(rows, 1)


@pytest.mark.parametrize("keep_scope", SCOPES)
@pytest.mark.parametrize("step_scope", SCOPES)
@pytest.mark.parametrize("run", [recurrence.run, chunkwise.run], ids=["recurrence", "chunkwise"])
def test_a_matrix_fades_and_learns_by_channel(keep_scope: str, step_scope: str, run: object) -> None:
    """Key gates act on rows, value gates on columns, both as an outer product (DFW's decay)."""
    point = DesignPoint.parse({"retention": {"l2": {"keep": {"scope": keep_scope}}}, "step": {"scope": step_scope}})
    given = case(point, 7, seed=3)

    def spread(gate: Tensor, scope: str) -> Tensor:
        if scope == "head":
            return gate[..., None, None].expand(*gate.shape, 3, 5)
        if scope == "key":
            return gate.unsqueeze(-1).expand(*gate.shape, 5)
        if scope == "value":
            return gate.unsqueeze(-2).expand(*gate.shape[:-1], 3, 5)
        return torch.einsum("bthk,bthv->bthkv", gate[..., :3], gate[..., 3:])

    keep, step = spread(given.inputs.log_keep.exp(), keep_scope), spread(given.inputs.step, step_scope)
    expected = delta_loop(given.inputs, given.start[0], keep, step)
    found, _ = run(point, given.inputs, given.start, given.static)
    assert worst([found], [expected]) < 1e-12


def test_a_vector_memory_is_one_weight_a_channel() -> None:
    point = DesignPoint.parse({"memory": "vector", "retention": "l2", "algorithm": "momentum"})
    given = case(point, 9, seed=5, value_dim=4)
    x = given.inputs
    assert x.momentum is not None
    w, s = given.start[0][:, 0].expand(2, 2, 4), torch.zeros(2, 2, 4, dtype=torch.float64)
    rows = []
    for t in range(9):
        gradient = x.k[:, t] * (x.k[:, t] * w - x.v[:, t])
        s = x.momentum[:, t, :, None] * s - x.step[:, t, :, None] * gradient
        w = x.log_keep[:, t, :, None].exp() * w + s
        rows.append(x.q[:, t] * w)
    for run in (recurrence.run, chunkwise.run):
        found, state = run(point, given.inputs, given.start, given.static)
        assert worst([found, state.dual[0].squeeze(-2)], [torch.stack(rows, 1), w]) < 1e-12


def test_a_layer_without_the_axis_takes_the_mean() -> None:
    """Of logarithms for a decay, so that every layer of a deep memory fades; a product where it has one axis of two."""
    gate = torch.rand(2, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    hidden, first = Layer(6, 6, keyed=False, valued=False), Layer(3, 6, keyed=True, valued=False)
    both = over_layer(gate, "key_value", hidden, 3, log=True)
    torch.testing.assert_close(both, (gate[:, :3].mean(-1) + gate[:, 3:].mean(-1))[:, None, None])
    half = over_layer(gate, "key_value", first, 3, log=False)
    torch.testing.assert_close(half, gate[:, :3].unsqueeze(-1) * gate[:, 3:].mean(-1)[:, None, None])
    assert over_layer(gate[:, :3], "value", hidden, 3, log=True).shape == (2, 1, 1)


def test_extreme_decays_by_channel_stay_finite_in_float32() -> None:
    point = DesignPoint.parse({"retention": {"l2": {"keep": {"scope": "key"}}}, "bias": "l2"})
    given = case(point, 20, seed=1)
    log_keep = torch.where(given.inputs.log_keep < -0.2, -30.0, given.inputs.log_keep)
    hard = given.with_leaves(
        [x.float() for x in (*given.inputs._replace(log_keep=log_keep), *given.start) if x is not None]
    )
    found, gradients, _ = evaluate(chunkwise.run, point, hard)
    expected, expected_gradients, _ = evaluate(recurrence.run, point, hard)
    assert all(torch.isfinite(x).all() for x in [*found, *gradients])
    assert worst(found, expected) < 1e-4
    assert worst(gradients, expected_gradients) < 1e-4
