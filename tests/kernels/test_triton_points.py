"""The chunked Triton kernel through dispatch against the recurrence: every part of the design space that it runs.

A covering set in float32: outputs, final states and all gradients. The token loop is the definition, so nothing of the
kernel's chunks, coefficients or solves is in what it is compared with.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from chunk_designs import BY_KEY, POINTS, execution
from memories import Case, evaluate
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from triton_agreement import assert_is_the_recurrence, assert_near, given_of
from triton_device import DEVICE, NEEDS_CUDA, RUNS, poison

from miras_search.kernels import dispatch, recurrence
from miras_search.kernels.dispatch import Setting, choose
from miras_search.kernels.state import State
from miras_search.kernels.triton.autograd import chunked
from miras_search.kernels.triton.launch import Configuration, Rule, configurations, value_block
from miras_search.space.bias import L2
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint

pytestmark = RUNS
# The interpreter cuts bfloat16 off where a device rounds: 14 bits of an operand are sure there, 16 on a device.
SPLIT = 2e-4
ROUNDED = 8e-3  # what is bfloat16 itself


@pytest.fixture(autouse=True)
def poisoned_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


@pytest.mark.parametrize(("spec", "tokens"), POINTS, ids=[json.dumps(spec)[:80] for spec, _ in POINTS])
def test_triton_is_the_recurrence(spec: dict[str, object], tokens: int) -> None:
    point = DesignPoint.parse(spec)
    assert choose(point, Setting("cuda", torch.float32, 5, 7)).run is dispatch.run_triton
    state, expected = assert_is_the_recurrence(point, given_of(point, tokens))
    assert list(state.tensors()) == list(expected.tensors())


@pytest.mark.parametrize("spec", [POINTS[0][0], POINTS[15][0], POINTS[18][0]], ids=["solved", "momentum", "by key"])
def test_value_channels_split_over_programs(monkeypatch: pytest.MonkeyPatch, spec: dict[str, object]) -> None:
    """What the parts share is summed; each still writes its own channels, the last of which is padded."""
    monkeypatch.setattr("miras_search.kernels.triton.launch._LARGEST_STATE_OF_LONG_CHUNKS", 16 * 16)
    assert value_block(5, 37, couples=False) == 16
    point = DesignPoint.parse(spec)
    assert_is_the_recurrence(point, given_of(point, 4, value_dim=37))


@pytest.mark.parametrize("least", [0.0, 1e-6, 1e-3])
@pytest.mark.parametrize("spec", [POINTS[15][0], POINTS[16][0]], ids=["solved", "swept"])
def test_momenta_of_zero_and_nearly(spec: dict[str, object], least: float) -> None:
    """Their own gradients too: nothing is divided by them."""
    point = DesignPoint.parse(spec)
    given = given_of(point, 18)
    assert given.inputs.momentum is not None
    momentum = given.inputs.momentum.detach().clone()
    momentum[:, ::3] = least
    momentum[:, 4:6] = least  # two in a row
    assert_is_the_recurrence(point, replace(given, inputs=given.inputs._replace(momentum=momentum)))


@pytest.mark.parametrize("spec", [{"preset": "delta_net"}, {"preset": "delta_net"} | execution("frozen")])
def test_a_gate_that_keeps_all_does_not_look_at_what_it_is_given(spec: dict[str, object]) -> None:
    """Nor is there a gradient of it."""
    point = DesignPoint.parse(spec)
    given = given_of(point, 9)
    fading = torch.full_like(given.inputs.log_keep, -1.0)
    assert_is_the_recurrence(point, replace(given, inputs=given.inputs._replace(log_keep=fading)))


def leaves(tokens: int = 4, heads: int = 1) -> list[Tensor]:
    """q, k, v, log_keep by key, step."""
    gen = torch.Generator().manual_seed(3)
    q, k, v, g, e = (torch.randn(1, tokens, heads, *channels, generator=gen) for channels in ([5], [5], [7], [5], []))
    given = [q, torch.nn.functional.normalize(k, dim=-1), v, -g.abs(), torch.sigmoid(e)]
    return [x.to(DEVICE).requires_grad_() for x in given]


def run(q: Tensor, k: Tensor, v: Tensor, g: Tensor, e: Tensor) -> Tensor:
    y, final, _ = chunked(q, k, v, g, e, bias=L2(), chunk=4, sweeps=None, decayed=True)
    return y.sin().sum() + final.square().sum()


def test_keeps_by_key_of_zero_and_one() -> None:
    """Resets of single channels leave the others alone, and 1/a is never formed."""
    q, k, v, g, e = leaves(tokens=18)
    with torch.no_grad():
        g[:, 3:17:2, :, 1] = -torch.inf
        g[..., 2] = 0.0
    found = torch.autograd.grad(run(q, k, v, g, e), (q, k, v, g, e))
    point = DesignPoint.parse({"retention": BY_KEY} | execution("exact", at="decayed"))
    given = given_of(point, 18)
    floored = g.detach().clamp(min=-30.0).requires_grad_()
    inputs = given.inputs._replace(q=q, k=k, v=v, log_keep=floored, step=e)
    start = (torch.zeros(1, 5, 7, device=DEVICE),)
    y, state = recurrence.run(point, inputs, start, {})
    expected = torch.autograd.grad(y.sin().sum() + state.dual[0].square().sum(), (q, k, v, floored, e))
    wanted = [*expected[:3], torch.where(g.isinf(), 0.0, expected[3]), expected[4]]
    assert_near(list(found), wanted)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by torch.compile itself
@pytest.mark.parametrize("backend", [pytest.param("eager", marks=pytest.mark.slow), "aot_eager"])
def test_compiled_it_is_two_opaque_operators(backend: str) -> None:
    given = leaves()
    expected = torch.autograd.grad(run(*given), given)
    compiled = torch.compile(run, backend=backend, fullgraph=True)
    assert_near(list(torch.autograd.grad(compiled(*given), given)), list(expected))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by torch.compile itself
def test_compiled_in_one_graph_with_the_tail_in_torch() -> None:
    point = DesignPoint.parse({"bias": "huber", "retention": "l2"} | execution({"refined": 2}))
    given = given_of(point, 11)

    def loss(q: Tensor) -> Tensor:
        y, final = dispatch.run_triton(point, given.inputs._replace(q=q), given.start, given.static)
        return y.sin().sum() + final.dual[0].square().sum()

    q = given.inputs.q.detach().requires_grad_()
    expected = torch.autograd.grad(loss(q), [q])
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    assert_near(list(torch.autograd.grad(compiled(q), [q])), list(expected), 1e-6)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by torch.compile itself
def test_compiled_one_after_the_other_designs_stay_apart() -> None:
    """Numbers that differ from design to design become variables to torch.compile, but no rule may hold one."""
    torch.compiler.reset()
    designs: list[dict[str, object]] = [
        {"bias": {"lp": {"p": 3.0, "smoothing": "tanh"}}} | execution({"refined": 2}),
        {"bias": {"lp": {"p": 4.0, "smoothing": "tanh"}}} | execution({"refined": 1}, 8),
        {"bias": {"l2": {"scale": "full"}}},
        {"bias": {"lp": {"p": 2.5, "smoothing": "tanh"}}} | execution("frozen", 2),
    ]
    for point in map(DesignPoint.parse, designs):
        given = given_of(point, 8)

        def loss(q: Tensor, point: DesignPoint = point, given: Case = given) -> Tensor:
            y, final = dispatch.run_triton(point, given.inputs._replace(q=q), given.start, given.static)
            return y.sin().sum() + final.dual[0].square().sum()

        q = given.inputs.q.detach().requires_grad_()
        expected = torch.autograd.grad(loss(q), [q])
        compiled = torch.autograd.grad(torch.compile(loss, backend="aot_eager", fullgraph=True)(q), [q])
        assert_near(list(compiled), list(expected), 1e-7)


def test_checkpointed_it_runs_again() -> None:
    given = leaves()
    expected = torch.autograd.grad(run(*given), given)
    again = checkpoint(run, *given, use_reentrant=False)
    assert_near(list(torch.autograd.grad(again, given)), list(expected), 1e-7)


def test_the_operators_are_registered_as_torch_expects() -> None:
    given = leaves(tokens=2)
    assert L2().triton is not None
    rule = Rule(L2().triton, slope=1.0, couples=False, chunk=2, writes=1, sweeps=None, decayed=True)
    assert Rule.from_text(rule.to_text()) == rule
    q, k, v, g, e = (x.detach() for x in given)
    arguments = (q, k, v, None, g, e, None, None, None, None, rule.to_text(), True)
    torch.library.opcheck(torch.ops.miras.chunked_forward, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize(("spec", "tokens"), POINTS, ids=[json.dumps(spec)[:80] for spec, _ in POINTS])
def test_split_products_are_the_recurrence(
    monkeypatch: pytest.MonkeyPatch, spec: dict[str, object], tokens: int
) -> None:
    """The arithmetic of bfloat16 inputs on float32 ones, where rounding of the inputs hides nothing."""
    split = Configuration(4, precision="split")
    monkeypatch.setattr("miras_search.kernels.triton.launch.configurations", lambda *of: [split])
    point = DesignPoint.parse(spec)
    assert_is_the_recurrence(point, given_of(point, tokens), SPLIT, SPLIT)


NARROW: list[tuple[dict[str, object], int]] = [
    ({"preset": "gated_delta_net"}, 37),
    ({"preset": "rwkv7"}, 9),
    ({"preset": "rwkv7"} | execution({"refined": 1}), 11),  # the tail is torch's
    ({"algorithm": "momentum", "retention": "l2"}, 18),
    ({"retention": BY_KEY} | execution("frozen", 12), 12),
    ({"bias": "logcosh", "retention": BY_KEY} | execution({"refined": 2}, 20, "decayed"), 20),
]


@pytest.mark.parametrize(("spec", "tokens"), NARROW, ids=[json.dumps(spec)[:80] for spec, _ in NARROW])
def test_bfloat16_inputs_are_the_recurrence(spec: dict[str, object], tokens: int) -> None:
    """Of the same numbers in float32: what is kept in float32 shows nothing of bfloat16's eight bits."""

    def narrow(inputs: Inputs) -> dict[str, Tensor]:
        return {name: getattr(inputs, name).bfloat16() for name in "qkvw" if getattr(inputs, name) is not None}

    def kernel(point: DesignPoint, inputs: Inputs, *rest: Any) -> tuple[Tensor, State]:
        y, state = dispatch.run_triton(point, inputs._replace(**narrow(inputs)), *rest)
        assert y.dtype == torch.bfloat16
        return y.float(), state

    def loop(point: DesignPoint, inputs: Inputs, *rest: Any) -> tuple[Tensor, State]:
        y, state = recurrence.run(point, inputs, *rest)
        return y.bfloat16().float(), state  # so that the output's gradient is rounded too

    point = DesignPoint.parse(spec)
    given = given_of(point, tokens)
    given = replace(given, inputs=given.inputs._replace(**{n: x.float() for n, x in narrow(given.inputs).items()}))
    expected, wanted, _ = evaluate(loop, point, given)
    found, gradients, _ = evaluate(kernel, point, given)
    assert_near(found[:1], expected[:1], ROUNDED)
    assert_near(found[1:], expected[1:], SPLIT)
    names = [name for name in Inputs._fields if getattr(given.inputs, name) is not None]
    for name, a, b in zip([*names, *["start"] * len(given.start)], gradients, wanted, strict=True):
        assert_near([a], [b], ROUNDED if name in "qkvw" else SPLIT)


def test_bfloat16_inputs_are_split_but_in_long_chunks() -> None:
    assert {one.precision for one in configurations(torch.bfloat16, 32)} == {"split"}
    assert {one.precision for one in configurations(torch.bfloat16, 64)} == {"ieee"}
    assert {one.precision for one in configurations(torch.float32, 16)} == {"ieee"}


@pytest.mark.parametrize(
    ("spec", "dtype", "chunk"),
    [
        ({"preset": "gated_delta_net"}, torch.bfloat16, 32),
        ({"preset": "gated_delta_net"}, torch.float32, 16),
        ({"preset": "delta_product"}, torch.bfloat16, 16),  # two writes a token
        ({"preset": "gla"}, torch.bfloat16, 16),
        ({"bias": "logcosh"} | execution("exact"), torch.bfloat16, 16),
        ({"preset": "delta_net"} | execution("frozen", 5), torch.bfloat16, 5),
    ],
)
def test_chunks_of_exact_gradients_are_the_kernels_to_choose(
    monkeypatch: pytest.MonkeyPatch, spec: dict[str, object], dtype: torch.dtype, chunk: int
) -> None:
    taken: list[object] = []

    def kernel(*given: Tensor, **settings: object) -> tuple[Tensor, Tensor, None]:
        taken.append(settings["chunk"])
        return given[2], given[6], None

    monkeypatch.setattr("miras_search.kernels.triton.autograd.chunked", kernel)
    point = DesignPoint.parse(spec)
    given = given_of(point, 40)
    inputs = given.inputs._replace(**{name: getattr(given.inputs, name).to(dtype) for name in "qkv"})
    dispatch.run_triton(point, inputs, given.start, given.static)
    assert taken == [chunk]


@pytest.mark.gpu
@NEEDS_CUDA
@pytest.mark.parametrize("number", range(len(POINTS)))
@pytest.mark.parametrize("warps", [2, 4, 8, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_configuration_on_a_device(
    monkeypatch: pytest.MonkeyPatch, number: int, warps: int, dtype: torch.dtype
) -> None:
    """Each configuration that a tuner may take, not only the one that is used; chunks in turn and, where that is
    possible, at once; float32 numbers throughout.
    """

    def only(_float32: torch.dtype, block_c: int) -> list[Configuration]:
        if not (found := [one for one in configurations(dtype, block_c) if one.num_warps == warps]):
            pytest.skip(f"with {warps} warps there is none")
        return found

    monkeypatch.setattr("miras_search.kernels.triton.launch.configurations", only)
    point = DesignPoint.parse(POINTS[number][0])
    given = given_of(point, 64 + POINTS[number][1], key_dim=32, value_dim=48)
    for way in ("in_turn", "at_once"):
        monkeypatch.setenv("MIRAS_TRITON_CHUNKS", way)
        assert_is_the_recurrence(point, given, 1e-3, 2e-3)
