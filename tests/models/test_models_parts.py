"""Gates and convolution of a memory layer, and the negative controls acting on it."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from miras_search.kernels.recording import recording
from miras_search.models.config import ModelConfig
from miras_search.models.convolution import CausalConvolution
from miras_search.models.gates import Gates
from miras_search.models.mixer import Mixer
from miras_search.space.design import DesignPoint
from miras_search.space.gates import LOG_FLOOR


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SOFTPLUS = {"squash": "softplus", "value": 1.3}


@pytest.mark.parametrize("source", ["fixed", "learned", "data"])
def test_gates_start_at_their_values_whatever_their_source(source: str) -> None:
    def gate(value: float, **settings: Any) -> dict[str, Any]:
        return {"source": source, "value": value, **settings}

    design = DesignPoint.parse(
        {
            "bias": {"huber": {"delta": gate(1.3, squash="softplus")}},
            "retention": {"l2": {"keep": gate(0.9)}},
            "algorithm": {"momentum": {"momentum": gate(0.7)}},
            "step": gate(0.25, scale=2.0),
        }
    )
    gates = Gates(design, 3, 4, 5).double()
    gates.initialise(torch.Generator().manual_seed(3))
    assert gates.width == (4 * 3 if source == "data" else 0)
    assert sum(p.numel() for p in gates.parameters()) == (0 if source == "fixed" else 4 * 3)
    values = gates(torch.zeros(2, 5, gates.width, dtype=torch.float64))
    expected = {"step": 0.25, "keep": math.log(0.9), "momentum": 0.7, "threshold": 1.3}
    assert set(values) == set(expected)
    for slot, value in expected.items():
        shape = (2, 5, 1, 3) if slot == "step" else (2, 5, 3)
        assert values[slot].shape == shape
        torch.testing.assert_close(values[slot], torch.full(shape, value, dtype=torch.float64))


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("source", ["learned", "data"])
@pytest.mark.parametrize(("scope", "width"), [("key", 4), ("value", 5), ("key_value", 9)])
def test_gates_by_channel_start_at_their_values(source: str, scope: str, width: int, rank: int) -> None:
    def gate(value: float, **settings: Any) -> dict[str, Any]:
        return {"source": source, "value": value, "scope": scope, "rank": rank, **settings}

    design = DesignPoint.parse(
        {
            "retention": {"l2": {"keep": gate(0.9, temper=16.0)}},
            "algorithm": {"momentum": {"momentum": gate(0.7)}},
            "step": gate(0.25),
        }
    )
    gates = Gates(design, 3, 4, 5).double()
    gates.initialise(torch.Generator().manual_seed(3))
    data = source == "data"
    assert gates.width == (0 if not data else 3 * rank if rank else 3 * 3 * width)
    raw = torch.zeros(2, 6, gates.width, dtype=torch.float64)
    share = 0.5 if scope == "key_value" else 1.0  # of two factors each starts at the root
    for slot, value in {"step": 0.25**share, "keep": share * math.log(0.9), "momentum": 0.7**share}.items():
        shape = (2, 6, 1, 3, width) if slot == "step" else (2, 6, 3, width)
        torch.testing.assert_close(gates(raw)[slot], torch.full(shape, value, dtype=torch.float64))
    if data:
        assert gates(raw + 1)["keep"].unique().numel() == (3 * width if rank else 1)  # a bottleneck mixes its channels


def test_a_decay_tied_to_the_step_is_mambas() -> None:
    """a = exp(-rate e), and at the step's start value the gate's own."""
    keep = {"source": "data", "squash": "mamba", "value": 0.9, "tie": "step"}
    step = {"source": "data", "squash": "softplus", "value": 0.4}
    gates = Gates(DesignPoint.parse({"retention": {"l2": {"keep": keep}}, "step": step}), 2, 4, 4).double()
    gates.initialise(torch.Generator().manual_seed(3))
    assert gates.width == 2  # the step's alone
    raw = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    at_start = gates(0 * raw)
    torch.testing.assert_close(at_start["keep"].exp(), torch.full((3, 5, 2), 0.9, dtype=torch.float64))
    rate = -math.log(0.9) / 0.4
    found = gates(raw)
    torch.testing.assert_close(found["keep"], -rate * found["step"].squeeze(2))


def test_data_gates_read_their_own_channels() -> None:
    design = DesignPoint.parse({"retention": "l2", "algorithm": "multi_step", "bias": "l2"})
    gates = Gates(design, 2, 4, 5).double()
    gates.initialise(torch.Generator().manual_seed(3))
    assert gates.width == 2 * 2 + 2  # a step for each of two writes, one keep
    raw = torch.zeros(1, 1, 6, dtype=torch.float64)
    base = gates(raw)
    reached = []
    for channel in range(6):
        moved = gates(raw + functional.one_hot(torch.tensor(channel), 6))
        changed = {slot: (moved[slot] != base[slot]).flatten().nonzero().flatten().tolist() for slot in base}
        reached.append([(slot, i) for slot, found in changed.items() for i in found])
    assert sorted(reached) == [[("keep", 0)], [("keep", 1)], *[[("step", i)] for i in range(4)]]


def test_mamba_gates_start_at_their_value_and_scale_by_their_rate() -> None:
    design = DesignPoint.parse("gated_delta_net")
    gates = Gates(design, 2, 4, 5).double()
    gates.initialise(torch.Generator().manual_seed(3))
    raw = torch.zeros(1, 3, gates.width, dtype=torch.float64)
    torch.testing.assert_close(gates(raw)["keep"].exp(), torch.full((1, 3, 2), 0.97, dtype=torch.float64))
    with torch.no_grad():
        gates.log_rate["keep"].copy_(torch.tensor([0.0, math.log(3.0)]))
    torch.testing.assert_close(
        gates(raw)["keep"].exp(), torch.tensor([0.97, 0.97**3], dtype=torch.float64).expand(1, 3, 2)
    )


@pytest.mark.parametrize(("keep", "expected"), [(0.0, LOG_FLOOR), (1.0, 0.0), (0.5, math.log(0.5))])
def test_a_fixed_keep_is_a_finite_logarithm(keep: float, expected: float) -> None:
    gates = Gates(DesignPoint.parse({"retention": {"l2": {"keep": keep}}}), 2, 4, 5)
    assert gates(torch.zeros(1, 2, gates.width))["keep"].flatten().tolist() == pytest.approx([expected] * 4)


def reference(x: Tensor, weight: Tensor) -> Tensor:
    """torch's own grouped convolution, zeros before the sequence; weight [width,C], tap 0 on the present."""
    width, channels = weight.shape
    kernel = weight.flip(0).t().unsqueeze(1)
    return functional.conv1d(functional.pad(x.transpose(1, 2), (width - 1, 0)), kernel, groups=channels).transpose(1, 2)


def convolution_of(width: int, channels: int = 3) -> CausalConvolution:
    convolution = CausalConvolution(channels, width).double()
    convolution.initialise(torch.Generator().manual_seed(width))
    return convolution


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("width", [1, 2, 4, 6])
def test_convolution_is_torchs(width: int, tokens: int, recorded: bool) -> None:
    convolution, x = convolution_of(width), normal(2, tokens, 3, seed=1).requires_grad_()
    assert convolution.weight.abs().max() <= width**-0.5
    y, past = convolution(x)
    expected = reference(x, convolution.weight)
    torch.testing.assert_close(y, expected)
    padded = functional.pad(x, (0, 0, width - 1, 0))
    assert torch.equal(past, padded[:, tokens:])
    weights = normal(2, tokens, 3, seed=2)
    with recording() if recorded else contextlib.nullcontext():
        found = torch.autograd.grad((y * weights).sum(), [x, convolution.weight])
    for a, b in zip(found, torch.autograd.grad((expected * weights).sum(), [x, convolution.weight]), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("cuts", [[1], [2, 3], [1, 2, 3, 4, 5, 6, 7]])
def test_convolution_streams(width: int, cuts: list[int]) -> None:
    convolution, x = convolution_of(width), normal(2, 8, 3, seed=1)
    whole, final = convolution(x)
    past, pieces = None, []
    for begin, end in zip([0, *cuts], [*cuts, 8], strict=True):
        y, past = convolution(x[:, begin:end], past)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    assert past is not None
    torch.testing.assert_close(past, final)


@pytest.mark.parametrize(("width", "tokens"), [(1, 3), (3, 2), (3, 5)])
def test_convolution_passes_gradcheck(width: int, tokens: int) -> None:
    convolution, x = convolution_of(width), normal(2, tokens, 3, seed=1).requires_grad_()

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(convolution, {"weight": weight}, (x,))[0]

    weight = convolution.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(run, (x, weight))


@pytest.mark.parametrize(("width", "tokens"), [(4, 2), (4, 7)])
def test_convolution_under_vmap_of_grad_is_a_loop(width: int, tokens: int) -> None:
    convolution, x = convolution_of(width), normal(5, 2, tokens, 3, seed=1)
    weight, wanted = normal(5, width, 3, seed=2), normal(2, tokens, 3, seed=3)

    def loss(weight: Tensor, x: Tensor) -> Tensor:
        return (torch.func.functional_call(convolution, {"weight": weight}, (x,))[0] * wanted).square().sum()

    together = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)))(weight, x)
    shared = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None))(weight, x[0])
    for i in range(5):
        alone = torch.func.grad(loss, argnums=(0, 1))(weight[i], x[i])
        torch.testing.assert_close(together[0][i], alone[0])
        torch.testing.assert_close(together[1][i], alone[1])
        torch.testing.assert_close(shared[i], torch.func.grad(loss)(weight[i], x[0]))


def mixer_of(design: DesignPoint) -> Mixer:
    mixer = Mixer(ModelConfig(d_model=8, heads=2), design).double()
    mixer.initialise(torch.Generator().manual_seed(3))
    with torch.no_grad():  # a matrix memory starts empty: give it something to lose
        for i, weights in enumerate(mixer.start):
            weights.add_(0.3 * normal(*weights.shape, seed=40 + i))
    return mixer


@pytest.mark.parametrize(("design", "columns"), [("linear_attention", 0), ("gated_delta_net", 4), ("kda", 18)])
def test_a_recorded_mixer_lays_out_few_columns_of_gates_otherwise_and_finds_the_same(
    design: object, columns: int
) -> None:
    mixer = Mixer(ModelConfig(d_model=32, heads=2), DesignPoint.parse(design)).double()
    mixer.initialise(torch.Generator().manual_seed(3))
    x, wanted = normal(2, 5, 32, seed=1).requires_grad_(), normal(2, 5, 32, seed=2)
    inputs = [x, *mixer.parameters()]

    def found() -> tuple[Tensor, ...]:
        y, _ = mixer(x)
        return y, *torch.autograd.grad((y * wanted).sum(), inputs, allow_unused=True, materialize_grads=True)

    expected = found()
    with recording():
        *_, gates = mixer._projected(x)
        again = found()
    assert gates.shape == (2, 5, columns)
    assert columns == 0 or (gates.stride(1) == 1) == (columns < 16)
    for a, b in zip(again, expected, strict=True):
        torch.testing.assert_close(a, b)


CONTROLLED: list[object] = [
    "gated_delta_net",
    "titans_lmm",
    "memora",
    {"retention": "l2", "execution": {"gradient": {"refined": 1}, "chunk": 4}},
]


@pytest.mark.parametrize("design", CONTROLLED, ids=str)
def test_no_write_leaves_the_memory_at_its_start(design: object) -> None:
    base = DesignPoint.parse(design)
    mixer, x = mixer_of(base.changed("control", "no_write")), normal(3, 11, 8, seed=5)
    _, state = mixer(x)
    for dual, start in zip(state.memory.dual, mixer.start, strict=True):
        assert torch.equal(dual, start.expand_as(dual))
    assert all(not s.any() for layers in state.memory.moments for s in layers)
    written = mixer_of(base)
    _, state = written(x)
    assert all((d - s).abs().max() > 1e-6 for d, s in zip(state.memory.dual, written.start, strict=True))
    assert sum(p.numel() for p in mixer.parameters()) == sum(p.numel() for p in written.parameters())


@pytest.mark.parametrize("design", ["delta_net", "titans_lmm", "memora"])
def test_ascent_turns_the_first_write_round(design: str) -> None:
    base = DesignPoint.parse(design).changed("retention", "none" if design != "memora" else {"kl": {"keep": 1.0}})
    x = normal(3, 1, 8, seed=5)
    changes = []
    for control in ("none", "ascent"):
        mixer = mixer_of(base.changed("control", control))
        _, state = mixer(x)
        changes.append([d - s for d, s in zip(state.memory.dual, mixer.start, strict=True)])
    for descent, ascent in zip(*changes, strict=True):
        assert descent.abs().max() > 1e-6
        torch.testing.assert_close(ascent, -descent, rtol=1e-9, atol=1e-12)


def test_writes_with_own_keys_have_a_projection_each_and_repeated_ones_share() -> None:
    base = DesignPoint.parse({"algorithm": {"multi_step": {"writes": 3}}})
    own, shared = mixer_of(base), mixer_of(base.changed("algorithm.own_keys", False))
    assert own.widths == [8, 24, 24]
    assert shared.widths == [8, 8, 8]
    captured = shared._inputs(normal(1, 2, 24, seed=1), shared.gates(normal(1, 2, shared.gates.width, seed=2)))
    assert captured.k.shape == (1, 6, 2, 4)
    assert torch.equal(captured.k[:, 0], captured.k[:, 2])
    assert not torch.equal(captured.k[:, 2], captured.k[:, 3])
    torch.testing.assert_close(captured.k.norm(dim=-1), torch.ones(1, 6, 2, dtype=torch.float64), rtol=1e-4, atol=0)


def test_every_write_of_a_token_has_the_tokens_threshold() -> None:
    huber = {"huber": {"delta": {"source": "data", "squash": "softplus", "value": 1.0}}}
    mixer = mixer_of(DesignPoint.parse({"bias": huber, "algorithm": {"multi_step": {"writes": 3}}}))
    gates = mixer.gates(normal(1, 2, mixer.gates.width, seed=2))
    inputs = mixer._inputs(normal(1, 2, sum(mixer.widths), seed=1), gates)
    assert inputs.threshold is not None
    assert inputs.threshold.shape == (1, 6, 2)
    for n in range(6):
        assert torch.equal(inputs.threshold[:, n], gates["threshold"][:, n // 3])
        step = gates["step"][:, n // 3].view(1, 3, 2)
        assert torch.equal(inputs.step[:, n], step[:, n % 3])
