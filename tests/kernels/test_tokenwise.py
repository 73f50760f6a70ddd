"""Dispatch of the Triton kernels that go token by token: what they are taken for, and what they are not."""

from __future__ import annotations

import sys

import pytest
import torch
from loops import DESIGNS, as_dtype, assert_agrees, given
from triton_device import INTERPRETED

from miras_search.kernels import dispatch, recurrence, tokenwise
from miras_search.kernels.dispatch import Setting, choose
from miras_search.space.design import DesignPoint

CUDA = Setting("cuda", torch.float32, 16, 16)
KL = DesignPoint.parse(DESIGNS["kl"])


@pytest.mark.parametrize("name", [name for name in DESIGNS if "no link" not in name])
def test_a_link_on_a_gpu_runs_in_the_loop(name: str) -> None:
    point = DesignPoint.parse(DESIGNS[name])
    choice = choose(point, CUDA)
    assert choice.name in (("triton loop",) if point.retention.triton else ("triton", "triton loop"))
    if choice.name == "triton loop":
        assert choice.run is tokenwise.run_loop


def test_what_neither_kernel_runs_is_torchs() -> None:
    choice = choose(DesignPoint.parse({"retention": "f_divergence"}), CUDA)
    assert choice.name == "chunkwise"
    assert [name for name, _ in choice.passed_over] == ["triton", "triton loop"]


def test_an_unimportable_triton_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "miras_search.kernels.triton.loop_run", None)
    assert "Triton cannot be imported: " in dict(choose(KL, CUDA).passed_over)["triton loop"]


def test_only_single_tokens_without_gradients_on_a_gpu_are_decoded() -> None:
    """Not on a CPU; what a device would decide is asked of a tensor that says it is on one."""

    class Elsewhere(torch.Tensor):
        device = torch.device("cuda")

    two = given(KL, 2).inputs
    one = as_dtype(given(KL, 1), torch.float32).inputs
    on_gpu = one._replace(q=one.q.as_subclass(Elsewhere))
    assert not tokenwise.decodes(KL, on_gpu)  # with gradients
    with torch.no_grad():
        assert tokenwise.decodes(KL, on_gpu)
        assert not tokenwise.decodes(KL, one)
        assert not tokenwise.decodes(KL, two._replace(q=two.q.as_subclass(Elsewhere)))
        assert not tokenwise.decodes(DesignPoint.parse({"memory": "mlp"}), on_gpu)


@pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1")
def test_a_streamed_token_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """From no state and from one."""
    seen = []

    def decodes(point: DesignPoint, inputs: object) -> bool:
        seen.append(point)
        return True

    monkeypatch.setattr(tokenwise, "decodes", decodes)
    x = as_dtype(given(KL, 2), torch.float32)
    state, outputs = None, []
    with torch.no_grad():
        for t in range(2):
            y, state = dispatch.run(KL, x.inputs.tokens(t, t + 1), x.start, x.static, state)
            outputs.append(y)
        expected, final = recurrence.run(KL, x.inputs, x.start, x.static)
    assert len(seen) == 2
    assert state is not None
    found = {"y": torch.cat(outputs, 1), **state.tensors()}
    assert_agrees(found, {"y": expected, **final.tensors()}, 1e-5)
