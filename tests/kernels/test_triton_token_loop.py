"""The Triton token loop against the recurrence in float64: outputs, final state and every gradient.

Without a CUDA device the kernels run in Triton's CPU interpreter (tests/conftest.py), else on the device. The tests
marked gpu add sizes that the interpreter is too slow for.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from loops import DESIGNS, as_dtype, assert_agrees, given, outputs_and_gradients, rms_ratio
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from triton_device import DEVICE, NEEDS_CUDA, RUNS, poison

from miras_search.kernels import recurrence
from miras_search.kernels.triton.loop_launch import LoopRule
from miras_search.kernels.triton.loop_ops import LoopInputError
from miras_search.kernels.triton.loop_run import loop_refuses, loop_rule, run_loop
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint

pytestmark = RUNS
RATIO = 1e-5  # measured: at most 1e-6 in float32


@pytest.fixture(autouse=True)
def poisoned_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def check(name: str, tokens: int, ratio: float = RATIO, **sizes: int) -> None:
    point = DesignPoint.parse(DESIGNS[name])
    x = given(point, tokens, **sizes)
    expected = outputs_and_gradients(recurrence.run, point, x)
    assert_agrees(outputs_and_gradients(run_loop, point, as_dtype(x, torch.float32, DEVICE)), expected, ratio)


@pytest.mark.parametrize("name", DESIGNS)
def test_agrees_with_the_recurrence(name: str) -> None:
    """Six tokens: a chunk of four and half of one, or one segment."""
    check(name, 6)


@pytest.mark.parametrize("name", ["kl", "kl by chunks, frozen"])
def test_agrees_over_several_segments(name: str) -> None:
    check(name, 18, key_dim=2, value_dim=2)


@pytest.mark.parametrize(("name", "key_dim", "value_dim"), [("kl, decayed", 1, 4), ("elastic net, in place", 9, 1)])
def test_agrees_at_a_single_token_and_other_shapes(name: str, key_dim: int, value_dim: int) -> None:
    check(name, 1, batch=2, heads=3, key_dim=key_dim, value_dim=value_dim)


@pytest.mark.parametrize("name", ["kl, frozen", "kl by chunks, frozen", "lq, restarted", "kl, two writes"])
def test_continues_from_any_state(name: str) -> None:
    """Cut in the middle of a chunk, at its end, and over more than one."""
    point = DesignPoint.parse(DESIGNS[name])
    x = as_dtype(given(point, 13), torch.float32, DEVICE)
    whole, final = recurrence.run(point, x.inputs, x.start, x.static)
    state, pieces = None, []
    for begin, end in ((0, 2), (2, 4), (4, 11), (11, 13)):
        y, state = run_loop(point, x.inputs.tokens(begin, end), x.start, x.static, state)
        pieces.append(y)
    assert state is not None
    assert state.position == final.position
    found = {"y": torch.cat(pieces, 1), **state.tensors()}
    assert_agrees(found, {"y": whole, **final.tensors()}, RATIO)


def test_a_keep_of_zero_forgets() -> None:
    """A log keep of minus infinity, whose gradient is 0."""
    point = DesignPoint.parse(DESIGNS["kl"])
    x = given(point, 4)
    log_keep = x.inputs.log_keep.clone()
    log_keep[:, 2] = -torch.inf
    x = as_dtype(type(x)(x.inputs._replace(log_keep=log_keep), x.start, x.static), torch.float32, DEVICE)
    found = outputs_and_gradients(run_loop, point, x)
    expected = outputs_and_gradients(recurrence.run, point, x)
    assert_agrees(found, expected, RATIO)
    assert not found["d_3"][:, 2].any()


def test_signals_of_frozen_gradients_are_held() -> None:
    """At 1e6, where no gradient passes; and a NaN stays one, in its head."""
    point = DesignPoint.parse({"retention": "l2", "execution": {"gradient": "frozen", "chunk": 2}})
    x = given(point, 4, heads=2)
    v = x.inputs.v.clone()
    v[:, 0, 0] *= 1e8
    x = as_dtype(type(x)(x.inputs._replace(v=v), x.start, x.static), torch.float32, DEVICE)
    found = outputs_and_gradients(run_loop, point, x)
    assert_agrees(found, outputs_and_gradients(recurrence.run, point, x), RATIO)
    assert not found["d_2"][:, 0, 0].any()
    x.inputs.v[0, 1, 0, 0] = torch.nan
    y, _ = run_loop(point, x.inputs, x.start, x.static)
    assert y[0, 1:, 0, 0].isnan().all()
    assert not y[0, 0].isnan().any()
    assert not y[0, :, 1].isnan().any()


def test_bfloat16_inputs_keep_a_float32_state() -> None:
    point = DesignPoint.parse(DESIGNS["kl"])
    x = given(point, 3)
    single = as_dtype(x, torch.float32, DEVICE)
    half = single.inputs._replace(**{n: getattr(single.inputs, n).bfloat16() for n in ("q", "k", "v")})
    y, state = run_loop(point, half, single.start, single.static)
    assert (y.dtype, state.dual[0].dtype) == (torch.bfloat16, torch.float32)
    rounded = Inputs(*(None if z is None else z.float() for z in half))
    expected, final = recurrence.run(point, rounded, single.start, single.static)
    assert rms_ratio(y, expected) < 8e-3  # the interpreter truncates to bfloat16
    assert rms_ratio(state.dual[0], final.dual[0]) < RATIO


def test_vmap_of_grad_equals_a_loop() -> None:
    """Several trainings in one process, keys shared by all of them."""
    point = DesignPoint.parse(DESIGNS["kl, two writes"])
    members = [as_dtype(given(point, 2, seed=seed), torch.float32, DEVICE) for seed in range(2)]
    shared = members[0].inputs.k

    def loss(k: Tensor, *leaves: Tensor) -> Tensor:
        x = members[0].with_leaves(list(leaves))
        y, state = run_loop(point, x.inputs._replace(k=k), x.start, x.static)
        return y.sin().sum() + state.dual[0].square().sum()

    stacked = [torch.stack(leaves) for leaves in zip(*(x.leaves() for x in members), strict=True)]
    wanted = tuple(range(len(stacked) + 1))
    found = torch.func.vmap(torch.func.grad(loss, wanted), (None, *(0 for _ in stacked)))(shared, *stacked)
    for i, x in enumerate(members):
        alone = torch.func.grad(loss, wanted)(shared, *x.leaves())
        for a, b in zip(found, alone, strict=True):
            torch.testing.assert_close(a[i], b)


def loss_of(name: str) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A function of the queries of a design's case, and these queries."""
    point = DesignPoint.parse(DESIGNS[name])
    x = as_dtype(given(point, 2), torch.float32, DEVICE)

    def loss(q: Tensor) -> Tensor:
        y, state = run_loop(point, x.inputs._replace(q=q), x.start, x.static)
        return y.sin().sum() + state.dual[0].square().sum()

    return loss, x.inputs.q.requires_grad_()


def test_compiled_it_is_an_opaque_operator_whatever_was_compiled_before() -> None:
    """Numbers that differ from design to design become variables to torch.compile, but no rule may hold one."""
    torch.compiler.reset()
    for name in ("kl by chunks, frozen", "no link", "elastic net, in place, decayed", "kl by chunks, frozen"):
        loss, q = loss_of(name)
        (expected,) = torch.autograd.grad(loss(q), q)
        (compiled,) = torch.autograd.grad(torch.compile(loss, backend="aot_eager", fullgraph=True)(q), q)
        assert torch.equal(compiled, expected)


def test_checkpointed_it_is_the_same() -> None:
    loss, q = loss_of("kl")
    (expected,) = torch.autograd.grad(loss(q), q)
    (again,) = torch.autograd.grad(checkpoint(loss, q, use_reentrant=False), q)
    assert torch.equal(again, expected)


@pytest.mark.parametrize("name", DESIGNS)
def test_a_rule_and_its_text_are_one(name: str) -> None:
    rule = loop_rule(DesignPoint.parse(DESIGNS[name]))
    assert LoopRule.from_text(rule.to_text()) == rule


def test_second_derivatives_are_refused() -> None:
    point = DesignPoint.parse(DESIGNS["no link"])
    x = as_dtype(given(point, 1), torch.float32, DEVICE)
    q = x.inputs.q.requires_grad_()
    y, _ = run_loop(point, x.inputs, x.start, x.static)
    (d_q,) = torch.autograd.grad(y.square().sum(), q, create_graph=True)
    with pytest.raises(LoopInputError, match="second derivatives"):
        d_q.sum().backward()


@pytest.mark.parametrize(
    ("design", "reason"),
    [
        ({"memory": "mlp"}, "bare matrix"),
        ({"algorithm": "adam"}, "linear in their gradients"),
        ({"algorithm": {"omega": {"window": 3}}}, "writes of single pairs"),
        ({"retention": "f_divergence"}, "no pair of jit functions is written for the retention f_divergence"),
        ({"execution": {"gradient": {"refined": 2}}}, "tower of states"),
        ({"retention": "kl", "execution": {"link_refresh": "lag"}}, "no lag token"),
    ],
)  # fmt: skip
def test_what_the_loop_does_not_run_is_told(design: dict[str, object], reason: str) -> None:
    assert reason in str(loop_refuses(DesignPoint.parse(design), 8, 8, torch.float32))


def test_large_states_and_other_dtypes_are_refused() -> None:
    point = DesignPoint.parse(DESIGNS["kl"])
    assert loop_refuses(point, 128, 128, torch.bfloat16) is None
    assert "exceeds 128 x 128" in str(loop_refuses(point, 129, 128, torch.float32))
    assert "float64" in str(loop_refuses(point, 8, 8, torch.float64))


@pytest.mark.gpu
@NEEDS_CUDA
@pytest.mark.parametrize(("tokens", "key_dim", "value_dim"), [(70, 64, 64), (33, 60, 100), (300, 16, 32)])
@pytest.mark.parametrize("name", DESIGNS)
def test_agrees_on_a_device(name: str, tokens: int, key_dim: int, value_dim: int) -> None:
    check(name, tokens, 2e-3, batch=2, key_dim=key_dim, value_dim=value_dim)
