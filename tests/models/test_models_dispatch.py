"""Dispatch: the fastest implementation that runs a point, why not a faster one, and Triton's path around chunks."""

from __future__ import annotations

import os
import sys

import pytest
import torch
from memories import case, evaluate, worst
from torch import Tensor

from miras_search.kernels import dispatch, recurrence
from miras_search.kernels.dispatch import Setting, choose
from miras_search.space.bias import BIAS
from miras_search.space.design import DesignPoint
from miras_search.space.presets import PRESETS, preset

CPU = Setting("cpu", torch.float32, 16, 16)
CUDA = Setting("cuda", torch.float32, 16, 16)
REFINED = DesignPoint.parse({"preset": "delta_net", "execution": {"gradient": {"refined": 2}, "chunk": 4}})
GATED = DesignPoint.parse(
    {
        "bias": {"huber": {"delta": {"source": "data", "squash": "softplus", "value": 1.0}}},
        "retention": "l2",
        "execution": {"gradient": {"refined": 1}, "chunk": 4, "gradient_at": "decayed"},
    }
)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_on_a_cpu_triton_is_passed_over_with_the_reason(name: str) -> None:
    choice = choose(preset(name), CPU)
    assert choice.name == "chunkwise"
    reason = "Triton compiles for GPUs; the device is cpu"
    assert choice.passed_over == (("triton", reason), ("triton loop", reason))


@pytest.mark.parametrize(
    "point",
    [REFINED, GATED, *map(preset, ("delta_net", "gated_delta_net", "delta_product", "gla", "rwkv7"))],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_a_matrix_memory_runs_in_triton(point: DesignPoint, dtype: torch.dtype) -> None:
    choice = choose(point, Setting("cuda", dtype, 16, 16))
    assert choice.name == "triton"
    assert choice.run is dispatch.run_triton
    assert choice.passed_over == ()


@pytest.mark.parametrize(
    ("point", "setting", "reason"),
    [
        (preset("yaad"), CUDA, "the kernel holds a matrix memory with an identity link"),
        (preset("memora"), CUDA, "the kernel holds a matrix memory with an identity link"),
        (DesignPoint.parse({"algorithm": "omega"}), CUDA,
         "the kernel makes plain gradient steps, each on a pair of its own token"),
        (GATED.changed("retention.keep.scope", "value"), CUDA,
         "the kernel takes keep by head or key and other gates by head: keep by value"),
        (GATED.changed("retention.keep.scope", "key").changed("algorithm", "momentum"), CUDA,
         "the kernel takes keep by key channel only without momentum"),
        (REFINED, Setting("cuda", torch.float32, 512, 16),
         "K=512: the Triton kernel takes at most 256; use more heads or chunkwise torch"),
        (REFINED.changed("retention", "kl"), CUDA, "the kernel holds a matrix memory with an identity link"),
        (REFINED, Setting("cuda", torch.float64, 16, 16),
         "dtype: float64: the Triton kernel takes float32 or bfloat16"),
        (GATED, Setting("cuda", torch.float32, 256, 256),
         "K=256, V=256: 256 x 256 after padding exceeds 128 x 128; use more heads or chunkwise torch"),
        (REFINED.changed("execution.chunk", 128), CUDA,
         "chunk: 128 writes: the Triton kernel takes at most 64; use less or chunkwise torch"),
    ],
)  # fmt: skip
def test_on_a_gpu_the_reason_is_told(point: DesignPoint, setting: Setting, reason: str) -> None:
    choice = choose(point, setting)
    assert choice.passed_over[0] == ("triton", reason)


def test_an_unimportable_triton_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "miras_search.kernels.triton.launch", None)
    choice = choose(REFINED, CUDA)
    assert choice.name == "chunkwise"
    assert choice.passed_over[0][1].startswith("Triton cannot be imported: ")


def test_every_named_pair_of_jit_functions_exists() -> None:
    from miras_search.kernels.triton.signals import pair_of

    for name in BIAS.options:
        where = BIAS.parse(name).triton
        assert where is not None
        assert all(map(callable, pair_of(where)[:2]))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_run_is_the_recurrence(name: str) -> None:
    point = preset(name)
    given = case(point, 6, seed=1)
    y, _ = dispatch.run(point, given.inputs, given.start, given.static)
    expected, _ = recurrence.run(point, given.inputs, given.start, given.static)
    assert worst([y], [expected]) < 1e-10


interpreted = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="the interpreter is off where there is a GPU"
)


@interpreted
@pytest.mark.parametrize("tokens", [3, 4, 8, 10])
@pytest.mark.parametrize("point", [REFINED, GATED], ids=["delta_net refined", "huber gated"])
def test_triton_is_the_recurrence_for_full_and_partial_chunks(point: DesignPoint, tokens: int) -> None:
    given = case(point, tokens, seed=tokens, dtype=torch.float32)
    expected, expected_gradients, expected_state = evaluate(recurrence.run, point, given)
    found, gradients, state = evaluate(dispatch.run_triton, point, given)
    assert state.position == expected_state.position == tokens % 4
    assert list(state.tensors()) == list(expected_state.tensors())
    assert worst(found, expected) < 2e-5
    assert worst(gradients, expected_gradients) < 2e-5


@interpreted
@pytest.mark.parametrize("cuts", [[4], [3], [8, 9], [2, 6]])
@pytest.mark.parametrize("point", [REFINED, GATED], ids=["delta_net refined", "huber gated"])
def test_triton_continues_from_any_state(point: DesignPoint, cuts: list[int]) -> None:
    given = case(point, 14, seed=3, dtype=torch.float32)
    whole, final = recurrence.run(point, given.inputs, given.start, given.static)
    state, pieces = None, []
    for begin, end in zip([0, *cuts], [*cuts, 14], strict=True):
        piece = given.inputs.tokens(begin, end)
        y, state = dispatch.run_triton(point, piece, given.start, given.static, state)
        pieces.append(y)
    assert state is not None
    assert state.position == final.position
    assert worst([torch.cat(pieces, 1), *state.tensors().values()], [whole, *final.tensors().values()]) < 2e-5


@interpreted
@pytest.mark.parametrize("tokens", [4, 6])
def test_triton_takes_bfloat16_for_full_and_partial_chunks(tokens: int) -> None:
    """The kernel's state is float32 whatever the inputs are, and the rest of a sequence goes on from it."""
    given = case(REFINED, tokens, seed=3, dtype=torch.float32)

    def half(x: Tensor) -> Tensor:
        return x.bfloat16()

    inputs = given.inputs._replace(q=half(given.inputs.q), k=half(given.inputs.k), v=half(given.inputs.v))
    y, _ = dispatch.run_triton(REFINED, inputs, given.start, given.static)
    expected, _ = recurrence.run(REFINED, given.inputs, given.start, given.static)
    assert worst([y.float()], [expected]) < 5e-2
