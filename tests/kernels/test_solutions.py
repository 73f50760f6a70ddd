"""Memories that are solved for: the parallel form against the definition, token by token, in every segmentation.

What the definition computes is compared with least squares, with torch's attention and with loops in tests/space.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from memories import Case, case, evaluate, worst
from torch import Tensor

from miras_search.kernels import chunkwise, dispatch, recurrence
from miras_search.kernels.dispatch import Setting, choose
from miras_search.kernels.state import State
from miras_search.space.algorithm import newton
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.memory import attention
from miras_search.space.rules import violations

PAIRS = {"algorithm": "nonparametric"}
MEMORIES: dict[str, dict[str, object]] = {
    "mesa": {"algorithm": "newton"},
    "mesa, conjugate gradients": {"algorithm": {"newton": {"iterations": 3}}},
    "attention": {"memory": "attention", **PAIRS},
    "attention, window": {"memory": {"attention": {"window": 5, "scale": 2.0}}, **PAIRS},
    "attention, fixed scale": {"memory": {"attention": {"learned": False, "scale": 3.0}}, **PAIRS},
}
RETENTIONS: tuple[object, ...] = ("none", "l2")
CONTROLS: tuple[object, ...] = ("none", "no_write")
POINTS = {
    f"{name}, {retention}, {control}": DesignPoint.parse({**spec, "retention": retention, "control": control})
    for (name, spec), retention, control in itertools.product(MEMORIES.items(), RETENTIONS, CONTROLS)
}
WRITTEN = [name for name in POINTS if "no_write" not in name]


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that few tokens are several parts of the parallel forms."""
    monkeypatch.setattr(newton, "CHUNK", 4)
    monkeypatch.setattr(attention, "QUERIES", 4)


def given_to(point: DesignPoint, tokens: int, *, seed: int, dtype: torch.dtype = torch.float64) -> Case:
    found = case(point, tokens, seed=seed, dtype=dtype)
    return Case(point.control.apply(found.inputs), found.start, found.static)


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("tokens", [1, 4, 7, 21])
def test_the_parallel_form_is_the_definition(name: str, tokens: int) -> None:
    point = POINTS[name]
    assert not point.descends
    assert violations(point, 3, 5) == []
    given = given_to(point, tokens, seed=tokens)
    expected, expected_gradients, expected_state = evaluate(recurrence.run, point, given)
    for run in (chunkwise.run, dispatch.run):
        found, gradients, state = evaluate(run, point, given)
        assert list(state.tensors()) == list(expected_state.tensors())
        assert worst(found, expected) < 1e-10
        assert worst(gradients, expected_gradients) < 1e-9
    reads = expected[0]
    assert torch.isfinite(reads).all()
    if "no_write" in name:
        assert torch.equal(reads, torch.zeros_like(reads))
        assert all(torch.isfinite(x).all() for x in expected_gradients)
    else:
        assert reads.abs().min() > 0
        assert all(x.abs().max() > 0 for x in expected_gradients if tokens > 1)


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("tokens", [1, 7, 40])
def test_float32_rounds_no_worse_than_the_definition(name: str, tokens: int) -> None:
    point = POINTS[name]
    given = given_to(point, tokens, seed=tokens + 50)
    single = given.with_leaves([x.float() for x in given.leaves()])
    expected, expected_gradients, _ = evaluate(recurrence.run, point, given)
    slow, slow_gradients, _ = evaluate(recurrence.run, point, single)
    found, gradients, _ = evaluate(chunkwise.run, point, single)
    assert worst(found, expected) < max(1e-4, 3 * worst(slow, expected))
    assert worst(gradients, expected_gradients) < max(1e-4, 3 * worst(slow_gradients, expected_gradients))


@pytest.mark.parametrize("run", [recurrence.run, chunkwise.run, dispatch.run], ids=["recurrence", "chunkwise", "any"])
@pytest.mark.parametrize("name", POINTS)
def test_a_sequence_may_be_cut_anywhere(name: str, run: Callable[..., tuple[Tensor, State]]) -> None:
    point, tokens = POINTS[name], 13
    given = given_to(point, tokens, seed=1)
    whole, final = chunkwise.run(point, given.inputs, given.start, given.static)
    for cuts in ([5], [1, 9], [4, 8], list(range(1, tokens))):
        state, pieces = None, []
        for first, last in zip([0, *cuts], [*cuts, tokens], strict=True):
            y, state = run(point, given.inputs.tokens(first, last), given.start, given.static, state)
            pieces.append(y)
        assert state is not None
        assert list(state.tensors()) == list(final.tensors())
        assert worst([torch.cat(pieces, 1), *state.tensors().values()], [whole, *final.tensors().values()]) < 1e-10


@pytest.mark.parametrize("name", WRITTEN)
def test_later_tokens_do_not_matter(name: str) -> None:
    """Bit for bit, at equal length."""
    point, seen = POINTS[name], 6
    given, other = given_to(point, 11, seed=1), given_to(point, 11, seed=2)
    changed = Inputs(
        *(
            x if x is None or y is None else torch.cat([x[:, :seen], y[:, seen:]], 1)
            for x, y in zip(given.inputs, other.inputs, strict=True)
        )
    )
    y, _ = chunkwise.run(point, given.inputs, given.start, given.static)
    z, _ = chunkwise.run(point, changed, given.start, given.static)
    assert torch.equal(y[:, :seen], z[:, :seen])
    assert not torch.isclose(y[:, seen:], z[:, seen:]).any(-1).all()


@pytest.mark.parametrize("name", WRITTEN)
def test_earlier_tokens_matter_as_far_as_they_reach(name: str) -> None:
    point = POINTS[name]
    given, other = given_to(point, 11, seed=1), given_to(point, 11, seed=2)
    v = torch.cat([other.inputs.v[:, :1], given.inputs.v[:, 1:]], 1)
    y, _ = chunkwise.run(point, given.inputs, given.start, given.static)
    z, _ = chunkwise.run(point, given.inputs._replace(v=v), given.start, given.static)
    reach = 5 if "window" in name else 11
    assert (y != z)[:, :reach].any(-1).all()
    assert torch.equal(y[:, reach:], z[:, reach:])


def test_keep_matters() -> None:
    for name in MEMORIES:
        given = given_to(POINTS[f"{name}, l2, none"], 9, seed=3)
        kept = given.inputs._replace(log_keep=torch.zeros_like(given.inputs.log_keep))
        y, _ = chunkwise.run(POINTS[f"{name}, l2, none"], given.inputs, given.start, given.static)
        z, _ = chunkwise.run(POINTS[f"{name}, none, none"], kept, given.start, given.static)
        assert (y - z)[:, 1:].abs().max() > 1e-3


@pytest.mark.parametrize("log_keep", [0.0, -30.0])
@pytest.mark.parametrize("name", [name for name in WRITTEN if "l2" in name])
def test_extreme_keep_gates_stay_finite(name: str, log_keep: float) -> None:
    point = POINTS[name]
    given = given_to(point, 20, seed=1, dtype=torch.float32)
    forced = Case(
        given.inputs._replace(log_keep=torch.full_like(given.inputs.log_keep, log_keep)), given.start, given.static
    )
    found, gradients, _ = evaluate(chunkwise.run, point, forced)
    expected, expected_gradients, _ = evaluate(recurrence.run, point, forced)
    assert all(torch.isfinite(x).all() for x in [*found, *gradients])
    assert worst(found, expected) < 1e-3
    assert worst(gradients, expected_gradients) < 1e-3


@pytest.mark.parametrize("name", WRITTEN)
def test_execution_does_not_matter(name: str) -> None:
    point = POINTS[name]
    other = point.refined({"execution": {"gradient": {"refined": 2}, "chunk": 3, "gradient_at": "decayed"}})
    assert not other.chunked
    assert other.hash == point.hash
    given = given_to(point, 9, seed=1)
    y, state = chunkwise.run(point, given.inputs, given.start, given.static)
    z, after = chunkwise.run(other, given.inputs, given.start, given.static)
    assert torch.equal(y, z)
    assert state.position == after.position == 0


def test_no_kernel_for_descent_takes_them() -> None:
    for point in POINTS.values():
        frozen = point.refined({"execution": {"gradient": "frozen"}})
        choice = choose(frozen, Setting("cuda", torch.float32, 16, 16))
        assert choice.name == "chunkwise"
        assert choice.passed_over[0] == ("triton", "the kernel descends; this memory is solved for")


@pytest.mark.parametrize("name", WRITTEN)
def test_many_memories_at_once(name: str) -> None:
    """vmap over inputs and static parameters, forwards and backwards, against a loop."""
    point = POINTS[name]
    cases = [given_to(point, 9, seed=seed) for seed in (1, 2, 3)]

    def loss(leaves: list[Tensor]) -> Tensor:
        given = cases[0].with_leaves(leaves)
        y, state = chunkwise.run(point, given.inputs, given.start, given.static)
        return y.square().sum() + sum(x.square().mean() for x in state.tensors().values())

    stacked = [torch.stack(leaves) for leaves in zip(*(one.leaves() for one in cases), strict=True)]
    found, values = torch.func.vmap(torch.func.grad_and_value(loss))(stacked)
    for i, one in enumerate(cases):
        leaves = [x.clone().requires_grad_() for x in one.leaves()]
        alone = loss(leaves)
        torch.testing.assert_close(values[i], alone.detach(), rtol=1e-11, atol=1e-12)
        expected = torch.autograd.grad(alone, leaves, allow_unused=True)
        for x, y in zip(found, expected, strict=True):
            torch.testing.assert_close(x[i], torch.zeros_like(x[i]) if y is None else y, rtol=1e-9, atol=1e-11)


def test_attention_over_one_window_of_everything_is_attention() -> None:
    one = POINTS["attention, none, none"]
    other = DesignPoint.parse({"memory": {"attention": {"window": 30}}, **PAIRS})
    given = given_to(one, 21, seed=1)
    y, _ = chunkwise.run(one, given.inputs, given.start, given.static)
    z, _ = chunkwise.run(other, given.inputs, given.start, given.static)
    assert worst([y], [z]) < 1e-12


def test_mesa_of_orthogonal_keys_is_the_delta_rule_shrunk_by_the_ridge() -> None:
    """y for a stored key is e v / (e + l): with l near 0 the value itself, which gradient descent reaches at step 1."""
    keys = torch.eye(4, dtype=torch.float64).view(1, 4, 1, 4)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(1, 4, 1, 3, generator=generator, dtype=torch.float64)
    ones = torch.ones(1, 4, 1, dtype=torch.float64)
    inputs = Inputs(keys, keys, values, 0 * ones, 0.5 * ones)
    point = DesignPoint.parse({"algorithm": {"newton": {"least": 0.25}}})
    raw = torch.zeros(1, 4, dtype=torch.float64)
    y, _ = chunkwise.run(point, inputs, (), {"ridge": raw})
    ridge = 0.25 + torch.log(torch.tensor(2.0, dtype=torch.float64))
    torch.testing.assert_close(y, values * 0.5 / (0.5 + ridge))
