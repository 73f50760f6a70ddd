"""The decode step against the recurrence, token after token: outputs and every tensor of the state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loops import CHUNKS, DESIGNS, HUBER, LEARNED_KL, as_dtype, assert_agrees, given
from triton_device import DEVICE, NEEDS_CUDA, RUNS, poison

from miras_search.kernels import recurrence
from miras_search.kernels.state import initial_state
from miras_search.kernels.triton.decode_run import decode, decode_refuses
from miras_search.space.design import DesignPoint

pytestmark = RUNS
REFINED: dict[str, Any] = {**CHUNKS, "gradient": {"refined": 2}}
TOWERS: dict[str, dict[str, Any]] = {
    "l2, refined": {"bias": HUBER, "retention": "l2", "execution": {**REFINED, "gradient_at": "decayed"}},
    "kl, refined, momentum": {"retention": LEARNED_KL, "algorithm": "momentum", "execution": REFINED},
    "kl, refined, two writes": {
        "retention": "kl",
        "algorithm": {"multi_step": {"writes": 2}},
        "execution": REFINED,
    },
    "kl by chunks, refined": {"retention": LEARNED_KL, "execution": {**REFINED, "link_refresh": "chunk"}},
    "kl, lag token": {"bias": HUBER, "retention": "kl", "execution": {**REFINED, "link_refresh": "lag"}},
    "elastic net, refined": {"retention": {"elastic_net": {"shrink": 0.05}}, "execution": REFINED},
}
"""What only the decode step has: towers and lag tokens."""


@pytest.fixture(autouse=True)
def poisoned_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def check(design: dict[str, Any], tokens: int, ratio: float, **sizes: int) -> None:
    point = DesignPoint.parse(design)
    assert decode_refuses(point, sizes.get("key_dim", 3), sizes.get("value_dim", 5), torch.float32) is None
    wide = given(point, tokens, **sizes)
    x = as_dtype(wide, torch.float32, DEVICE)
    expected = initial_state(point, wide.inputs, wide.start, wide.static)
    state = initial_state(point, x.inputs, x.start, x.static)
    for t in range(tokens):
        y, expected = recurrence.run(point, wide.inputs.tokens(t, t + 1), (), wide.static, expected)
        z, state = decode(point, x.inputs.tokens(t, t + 1), x.static, state)
        assert state.position == expected.position
        assert_agrees({"y": z, **state.tensors()}, {"y": y, **expected.tensors()}, ratio)


@pytest.mark.parametrize("name", [*DESIGNS, *TOWERS])
def test_agrees_with_the_recurrence_over_a_chunks_end(name: str) -> None:
    check({**DESIGNS, **TOWERS}[name], 5, 1e-5)


def test_agrees_for_several_heads_of_several_sequences() -> None:
    check(TOWERS["kl, refined, two writes"], 1, 1e-5, batch=2, heads=3, key_dim=2, value_dim=9)


def test_bfloat16_inputs_keep_a_float32_state() -> None:
    point = DesignPoint.parse(DESIGNS["kl"])
    x = as_dtype(given(point, 1), torch.float32, DEVICE)
    half = x.inputs._replace(**{n: getattr(x.inputs, n).bfloat16() for n in ("q", "k", "v")})
    y, state = decode(point, half, x.static, initial_state(point, x.inputs, x.start, x.static))
    assert (y.dtype, state.dual[0].dtype) == (torch.bfloat16, torch.float32)
    rounded = half._replace(**{n: getattr(half, n).float() for n in ("q", "k", "v")})
    _, expected = recurrence.run(point, rounded, x.start, x.static)
    assert_agrees({"dual": state.dual[0]}, {"dual": expected.dual[0]}, 1e-5)


def test_refuses_what_makes_no_single_writes() -> None:
    point = DesignPoint.parse({"algorithm": {"omega": {"window": 3}}})
    assert "single pairs" in str(decode_refuses(point, 8, 8, torch.float32))


@pytest.mark.gpu
@NEEDS_CUDA
@pytest.mark.parametrize("name", [*DESIGNS, *TOWERS])
def test_agrees_on_a_device(name: str) -> None:
    check({**DESIGNS, **TOWERS}[name], 9, 2e-3, batch=2, key_dim=64, value_dim=100)
