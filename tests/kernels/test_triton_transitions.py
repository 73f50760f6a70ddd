"""The chunked Triton kernel with all chunks at once, for few memories, against the recurrence.

Asked for by MIRAS_TRITON_CHUNKS; that this way is the one that ran is looked at too.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from memories import evaluate
from torch import Tensor
from triton_agreement import assert_is_the_recurrence, assert_near, given_of
from triton_device import DEVICE, NEEDS_CUDA, RUNS, poison

from miras_search.kernels import dispatch, recurrence
from miras_search.kernels.state import State
from miras_search.kernels.triton import chunked_launch, transitions_launch
from miras_search.kernels.triton.autograd import chunked
from miras_search.kernels.triton.launch import Configuration, Given, KernelInputError, Rule, configurations
from miras_search.space.bias import L2
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.jit import Jit

pytestmark = RUNS
BY_KEY = {"l2": {"keep": {"source": "data", "scope": "key"}}}
DECAYED = {"execution": {"gradient_at": "decayed"}}
WAYS = ("chunk_starts", "chunk_ends")
AT_ONCE: list[tuple[dict[str, object], int]] = [  # with their tokens; the last chunk is not full
    ({"preset": "delta_net"}, 1),
    ({"preset": "gated_delta_net"}, 37),
    ({"bias": {"l2": {"scale": "full"}}, "retention": "l2", "execution": {"gradient_at": "previous"}}, 48),
    ({"bias": {"lp": {"p": 2.0}}, "retention": "l2"}, 33),
    ({"bias": "dot", "retention": "l2"}, 35),
    ({"bias": "dot", "execution": {"gradient": "frozen", "chunk": 5}}, 25),
    ({"preset": "delta_product"}, 19),
    ({"preset": "gla"}, 35),
    ({"preset": "rwkv7"}, 34),
    ({"retention": BY_KEY} | DECAYED, 33),
]
IN_TURN: list[dict[str, object]] = [
    {"bias": "huber"},
    {"preset": "delta_net", "execution": {"gradient": {"refined": 1}, "chunk": 4}},
    {"algorithm": "momentum", "retention": "l2"},
]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What of the launches of all chunks at once was called. Buffers are poisoned."""
    calls: list[str] = []

    def watched(name: str) -> None:
        run = getattr(chunked_launch, name)
        monkeypatch.setattr(chunked_launch, name, lambda *of: (calls.append(name), run(*of))[1])

    for name in WAYS:
        watched(name)
    poison(monkeypatch)
    return calls


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRAS_TRITON_CHUNKS", "at_once")


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("spec", "tokens"), AT_ONCE, ids=[json.dumps(spec)[:80] for spec, _ in AT_ONCE])
def test_all_chunks_at_once_are_the_recurrence(ran: list[str], spec: dict[str, object], tokens: int) -> None:
    point = DesignPoint.parse(spec)
    assert_is_the_recurrence(point, given_of(point, tokens, batch=2))
    assert ran == list(WAYS)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("spec", [AT_ONCE[1][0], AT_ONCE[8][0]], ids=["by head", "by key"])
def test_value_channels_split_over_programs(
    monkeypatch: pytest.MonkeyPatch, ran: list[str], spec: dict[str, object]
) -> None:
    """Two blocks of them, the last not full; what they share is stored once."""
    monkeypatch.setattr("miras_search.kernels.triton.launch._LARGEST_STATE_OF_LONG_CHUNKS", 16 * 16)
    point = DesignPoint.parse(spec)
    assert_is_the_recurrence(point, given_of(point, 18, value_dim=20))
    assert ran == list(WAYS)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("spec", "tokens"), AT_ONCE[1::3], ids=[json.dumps(spec)[:80] for spec, _ in AT_ONCE[1::3]])
def test_split_products(monkeypatch: pytest.MonkeyPatch, ran: list[str], spec: dict[str, object], tokens: int) -> None:
    split = Configuration(4, precision="split")
    monkeypatch.setattr("miras_search.kernels.triton.launch.configurations", lambda *of: [split])
    point = DesignPoint.parse(spec)
    assert_is_the_recurrence(point, given_of(point, tokens), 2e-4, 2e-4)
    assert ran == list(WAYS)


@pytest.mark.parametrize("spec", [{"preset": "gated_delta_net"}, {"preset": "rwkv7"}], ids=["by head", "by key"])
def test_both_ways_agree_on_bfloat16_inputs(
    monkeypatch: pytest.MonkeyPatch, ran: list[str], spec: dict[str, object]
) -> None:
    """Of bfloat16 inputs a free chunk has 32 writes, under keeps by key channel 16."""
    point = DesignPoint.parse(spec)
    given = given_of(point, 41)
    narrow = {name: getattr(given.inputs, name) for name in "qkvw"}
    narrow = {name: x.detach().bfloat16().requires_grad_() for name, x in narrow.items() if x is not None}
    given = replace(given, inputs=given.inputs._replace(**narrow))
    found = {}
    for way in ("in_turn", "at_once"):
        monkeypatch.setenv("MIRAS_TRITON_CHUNKS", way)
        outputs, gradients, _ = evaluate(dispatch.run_triton, point, given)
        found[way] = [*outputs, *gradients]
    assert ran == list(WAYS)
    for x, y in zip(found["at_once"], found["in_turn"], strict=True):
        assert x.dtype == y.dtype
        assert_near([x], [y], 4e-3 if x.dtype == torch.bfloat16 else 2e-4)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("spec", IN_TURN, ids=[json.dumps(spec)[:80] for spec in IN_TURN])
def test_what_is_not_linear_in_the_state_runs_in_turn(ran: list[str], spec: dict[str, object]) -> None:
    point = DesignPoint.parse(spec)
    evaluate(dispatch.run_triton, point, given_of(point, 8))
    assert ran == []


def given_as(memories: int, tokens: int) -> Given:
    q, gates = torch.zeros(memories, tokens, 1, 4), torch.zeros(memories, tokens, 1)
    return Given(q, q, q, None, gates, gates, None, None)


@pytest.mark.parametrize(
    ("memories", "tokens", "expected"), [(8, 64, True), (9, 64, False), (8, 48, False), (0, 64, False)]
)
def test_few_memories_and_several_chunks_run_at_once(
    monkeypatch: pytest.MonkeyPatch, memories: int, tokens: int, *, expected: bool
) -> None:
    rule = Rule(Jit("of no use here"), 1.0, False, 16, 1, None, True)
    assert not transitions_launch.at_once(given_as(memories, tokens), rule)  # a CPU has no multiprocessors
    monkeypatch.setattr(transitions_launch, "multiprocessors", lambda device: 8)
    assert transitions_launch.at_once(given_as(memories, tokens), rule) == expected
    monkeypatch.setenv("MIRAS_TRITON_CHUNKS", "in_turn")
    assert not transitions_launch.at_once(given_as(memories, tokens), rule)


def test_states_of_more_than_a_gibibyte_run_in_turn_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transitions_launch, "multiprocessors", lambda device: 8)
    monkeypatch.setattr(transitions_launch, "_LARGEST_STATES", 2 * 4 * 4 * 4)
    rule = Rule(Jit("of no use here"), 1.0, False, 16, 1, None, True)
    assert transitions_launch.at_once(given_as(2, 64), rule)
    assert not transitions_launch.at_once(given_as(2, 80), rule)
    monkeypatch.setenv("MIRAS_TRITON_CHUNKS", "at_once")
    assert transitions_launch.at_once(given_as(2, 80), rule)


def test_tiles_that_do_not_fit_twice_run_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRAS_TRITON_CHUNKS", "at_once")
    rule = Rule(Jit("of no use here"), 1.0, False, 64, 1, None, True)
    q, gates = torch.zeros(1, 64, 1, 256), torch.zeros(1, 64, 1)
    wide = Given(q, q, q, None, gates, gates, None, None)
    assert not transitions_launch.at_once(wide, rule)
    assert transitions_launch.at_once(wide, replace(rule, chunk=32))
    assert transitions_launch.at_once(wide, replace(rule, slope=0.0))  # has none of them


def small() -> list[Tensor]:
    gen = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 5, 1, 3, generator=gen) for _ in range(3))
    given = [q, torch.nn.functional.normalize(k, dim=-1), v, -torch.ones(1, 5, 1), torch.full((1, 5, 1), 0.5)]
    return [x.to(DEVICE).requires_grad_() for x in given]


@pytest.mark.usefixtures("at_once")
def test_no_grad_gives_the_same_outputs_and_saves_no_states(ran: list[str]) -> None:
    given = small()
    y, final, _ = chunked(*given, bias=L2(), chunk=2, sweeps=None, decayed=False)
    with torch.no_grad():
        bare_y, bare_final, _ = chunked(*given, bias=L2(), chunk=2, sweeps=None, decayed=False)
    assert torch.equal(bare_y, y)
    assert torch.equal(bare_final, final)
    rule = Rule(L2().triton, 1.0, False, 2, 1, None, False)
    q, k, v, log_keep, step = (x.detach() for x in given)
    out = chunked_launch.run_forward(Given(q, k, v, None, log_keep, step, None, None), None, None, rule, save=False)
    assert out[3].shape == (1, 0)
    assert ran == ["chunk_starts"] * 3


@pytest.mark.usefixtures("at_once", "ran")
def test_under_vmap_memories_of_all_members_are_run() -> None:
    def total(*given: Tensor) -> Tensor:
        y, final, _ = chunked(*given, bias=L2(), chunk=2, sweeps=None, decayed=True)
        return y.sin().sum() + final.square().sum()

    members = [torch.stack([x.detach(), x.detach() * 0.9]) for x in small()]
    found = torch.func.vmap(torch.func.grad(total, argnums=(0, 1, 2, 3, 4)))(*members)
    for i in range(2):
        wanted = torch.func.grad(total, argnums=(0, 1, 2, 3, 4))(*(x[i] for x in members))
        assert_near([x[i] for x in found], list(wanted), 1e-6)


def test_the_backward_operator_is_registered_as_torch_expects() -> None:
    """Its gradients are contiguous, whatever that of the final state was."""
    rule = Rule(L2().triton, 1.0, False, 2, 1, None, False).to_text()
    q, k, v, log_keep, step = (x.detach() for x in small())
    y, final, _, starts, starts_s = torch.ops.miras.chunked_forward(
        q, k, v, None, log_keep, step, None, None, None, None, rule, True
    )
    turned = torch.ones_like(final).transpose(-1, -2).contiguous().transpose(-1, -2)
    given = (q, k, v, None, log_keep, step, None, None, starts, starts_s, torch.ones_like(y), turned, starts_s, rule)
    torch.library.opcheck(torch.ops.miras.chunked_backward, given, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.gpu
@NEEDS_CUDA
@pytest.mark.parametrize("way", ["in_turn", "at_once"])
@pytest.mark.parametrize("warps", [2, 4, 8, 16])
@pytest.mark.parametrize("spec", [{"preset": "gated_delta_net"}, {"preset": "gla"}], ids=["by head", "by key"])
def test_the_sizes_that_trainings_use_on_a_device(
    monkeypatch: pytest.MonkeyPatch, way: str, warps: int, spec: dict[str, object]
) -> None:
    """bfloat16, chunks of 32 and tiles of 64 rows: Hopper's own products are in no smaller ones.

    The inputs are bfloat16 numbers in both, so that what differs is the kernel's rounding.
    """
    monkeypatch.setenv("MIRAS_TRITON_CHUNKS", way)
    one = next(one for one in configurations(torch.bfloat16, 32) if one.num_warps == warps)
    monkeypatch.setattr("miras_search.kernels.triton.launch.configurations", lambda *of: [one])
    point = DesignPoint.parse(spec)
    given = given_of(point, 140, key_dim=64, value_dim=64, batch=2)
    narrow = {name: getattr(given.inputs, name).detach().bfloat16() for name in "qkv"}
    given = replace(given, inputs=given.inputs._replace(**{n: x.float().requires_grad_() for n, x in narrow.items()}))

    def kernel(point: DesignPoint, inputs: Inputs, *rest: Any) -> tuple[Tensor, State]:
        low = {name: getattr(inputs, name).bfloat16() for name in "qkv"}
        y, state = dispatch.run_triton(point, inputs._replace(**low), *rest)
        return y.float(), state

    expected, wanted, _ = evaluate(recurrence.run, point, given)
    found, got, _ = evaluate(kernel, point, given)
    assert_near(found, expected, 1e-2)
    assert_near(got, wanted, 2e-2)


def test_an_unknown_word_for_the_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRAS_TRITON_CHUNKS", "sideways")
    with pytest.raises(KernelInputError, match="MIRAS_TRITON_CHUNKS: sideways: must be one of auto, at_once, in_turn"):
        chunked(*small(), bias=L2(), chunk=2, sweeps=None, decayed=False)
