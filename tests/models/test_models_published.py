"""Weights of published layers: each layer's equations token by token in plain torch, against our mixer."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import conv1d, logsigmoid, pad, silu, softplus

from miras_search.models.config import ModelConfig
from miras_search.models.language import LanguageModel
from miras_search.models.mixer import Mixer
from miras_search.models.published import PublishedLayer, WeightsProblem
from miras_search.space.design import DesignPoint
from miras_search.space.fields import FieldError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "weights.md"
D, H, K, V, R, TAPS, T = 12, 3, 4, 5, 6, 4, 37  # R: GLA's bottleneck; 37 tokens are no whole chunks

LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gated_delta_net": ("gated_delta_net", {}),
    "gated_delta_net, twice beta": ("gated_delta_net", {"allow_neg_eigval": True}),
    "gated_delta_net, bare": ("gated_delta_net", {"use_gate": False, "use_short_conv": False}),
    "delta_net": ("delta_net", {}),
    "delta_net, gated": ("delta_net", {"use_gate": True, "allow_neg_eigval": True, "norm_eps": 1e-3}),
    "gla": ("gla", {}),
    "gla, convolved": ("gla", {"use_short_conv": True, "gate_logit_normalizer": 4}),
    "gla, without a gate": ("gla", {"use_gate": False}),
}
USUAL = {  # the output gate and the convolutions of the published defaults
    "gated_delta_net": (True, True),
    "delta_net": (False, True),
    "gla": (True, False),
}


def parts(kind: str, extra: dict[str, Any]) -> tuple[bool, bool]:
    gated, convolved = USUAL[kind]
    return extra.get("use_gate", gated), extra.get("use_short_conv", convolved)


def tensors(kind: str, extra: dict[str, Any], seed: int = 0, heads: int = H) -> dict[str, Tensor]:
    """A random state dict of the published layer."""
    gated, convolved = parts(kind, extra)
    shapes: dict[str, tuple[int, ...]] = {
        "q_proj.weight": (heads * K, D),
        "k_proj.weight": (heads * K, D),
        "v_proj.weight": (heads * V, D),
        "o_proj.weight": (D, heads * V),
    }
    if gated:
        shapes["g_proj.weight"] = (heads * V, D)
    if convolved:
        shapes |= {f"{x}_conv1d.weight": (heads * (V if x == "v" else K), 1, TAPS) for x in "qkv"}
    if kind == "gla":
        shapes |= {"gk_proj.0.weight": (R, D), "gk_proj.1.weight": (heads * K, R), "gk_proj.1.bias": (heads * K,)}
        shapes["g_norm_swish_gate.weight" if gated else "g_norm.weight"] = (V,)
    else:
        shapes |= {"b_proj.weight": (heads, D), "o_norm.weight": (V,)}
    if kind == "gated_delta_net":
        shapes |= {"a_proj.weight": (heads, D), "A_log": (heads,), "dt_bias": (heads,)}
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64) * shape[-1] ** -0.5
        for name, shape in shapes.items()
    }


def published(kind: str, extra: dict[str, Any], w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The layer as its authors define it, one token after the other: x [B,T,D] -> [B,T,D]."""
    gated, convolved = parts(kind, extra)

    def projected(letter: str) -> Tensor:
        y = x @ w[f"{letter}_proj.weight"].T
        if convolved:
            filters = w[f"{letter}_conv1d.weight"]
            y = conv1d(pad(y.transpose(1, 2), (TAPS - 1, 0)), filters, groups=len(filters)).transpose(1, 2)
        y = y if kind == "gla" and not convolved else silu(y)
        return y.unflatten(-1, (H, -1))

    q, k, v = (projected(letter) for letter in "qkv")
    delta = kind != "gla"
    if delta:
        q, k = (y / (y.square().sum(-1, keepdim=True) + 1e-6).sqrt() for y in (q, k))
        beta = torch.sigmoid(x @ w["b_proj.weight"].T) * (2 if extra.get("allow_neg_eigval") else 1)
    decay = x.new_ones(*x.shape[:2], H, 1)
    if kind == "gated_delta_net":
        g = -w["A_log"].exp() * softplus(x @ w["a_proj.weight"].T + w["dt_bias"])
        decay = g.exp().unsqueeze(-1)
    elif kind == "gla":
        low = x @ w["gk_proj.0.weight"].T @ w["gk_proj.1.weight"].T + w["gk_proj.1.bias"]
        decay = (logsigmoid(low) / extra.get("gate_logit_normalizer", 16)).exp().unflatten(-1, (H, K))

    state, reads = x.new_zeros(len(x), H, K, V), []
    for t in range(x.shape[1]):
        state = decay[:, t, :, :, None] * state
        write = v[:, t]
        if delta:
            write = beta[:, t, :, None] * (write - torch.einsum("bhk,bhkv->bhv", k[:, t], state))
        state = state + k[:, t, :, :, None] * write[:, :, None, :]
        reads.append(torch.einsum("bhk,bhkv->bhv", q[:, t] * K**-0.5, state))
    o = torch.stack(reads, 1)
    norm = w["g_norm_swish_gate.weight" if gated else "g_norm.weight"] if kind == "gla" else w["o_norm.weight"]
    o = o / (o.square().mean(-1, keepdim=True) + extra.get("norm_eps", 1e-5)).sqrt() * norm
    o = o.flatten(-2)
    if gated:
        o = o * silu(x @ w["g_proj.weight"].T)
    return o @ w["o_proj.weight"].T


def inputs(seed: int = 1) -> Tensor:
    return torch.randn(2, T, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().abs().max())


@pytest.mark.parametrize("name", LAYERS)
def test_the_mixer_is_the_published_layer(name: str) -> None:
    kind, extra = LAYERS[name]
    state, x = tensors(kind, extra), inputs()
    mixer = PublishedLayer(kind, H, **extra).mixer(state)
    expected = published(kind, extra, state, x)
    assert expected.abs().max() > 0.1
    assert distance(mixer(x)[0], expected) < 1e-10

    single = PublishedLayer(kind, H, **extra).mixer({name: tensor.float() for name, tensor in state.items()})
    assert single.project.weight.dtype == torch.float32
    assert distance(single(x.float())[0], expected) < 1e-5


@pytest.mark.parametrize("name", ["gated_delta_net", "delta_net", "gla", "gla, convolved"])
def test_in_segments_it_is_the_same(name: str) -> None:
    kind, extra = LAYERS[name]
    state, x = tensors(kind, extra), inputs()
    mixer = PublishedLayer(kind, H, **extra).mixer(state)
    carried, found = None, []
    for part in x.split([5, 1, 17, 14], 1):
        y, carried = mixer(part, carried)
        found.append(y)
    assert distance(torch.cat(found, 1), published(kind, extra, state, x)) < 1e-10


@pytest.mark.parametrize("kind", USUAL)
def test_the_scale_of_the_read_is_in_the_norms_eps(kind: str) -> None:
    """With small values eps weighs as much as what is read: without its factor K the outputs are others."""
    state, x = tensors(kind, {}), inputs()
    state["v_proj.weight"] *= 1e-2
    layer = PublishedLayer(kind, H)
    expected = published(kind, {}, state, x)
    assert distance(layer.mixer(state)(x)[0], expected) < 1e-10
    config, _ = layer.settings(state)
    assert config.norm_eps == pytest.approx(K * 1e-5)
    mixer = layer.mixer(state)
    mixer.config = dataclasses.replace(config, norm_eps=1e-5)
    assert distance(mixer(x)[0], expected) > 1e-2


@pytest.mark.parametrize("name", LAYERS)
def test_what_was_read_is_written_again(name: str) -> None:
    kind, extra = LAYERS[name]
    state, layer = tensors(kind, extra), PublishedLayer(kind, H, **extra)
    found = layer.weights(layer.mixer(state))
    assert found.keys() == state.keys()
    for key, tensor in found.items():
        assert torch.equal(tensor, state[key]), key
        assert tensor.is_contiguous(), key


@pytest.mark.parametrize("name", ["gated_delta_net, twice beta", "delta_net", "gla, convolved"])
def test_what_training_made_of_it_is_written(name: str) -> None:
    kind, extra = LAYERS[name]
    state, x, layer = tensors(kind, extra), inputs(), PublishedLayer(kind, H, **extra)
    mixer = layer.mixer(state)
    for _ in range(3):
        mixer.zero_grad()
        mixer(x)[0].square().mean().backward()
        with torch.no_grad():
            for parameter in (p for p in mixer.parameters() if p.requires_grad):
                parameter -= 0.1 * parameter.grad
    found = layer.weights(mixer)
    assert all(not torch.equal(found[key], state[key]) for key in state), "every published weight is trained"
    assert distance(mixer(x)[0], published(kind, extra, found, x)) < 1e-10


def test_a_layer_of_a_model_takes_the_weights_and_gives_them_back() -> None:
    """In float32, as a study builds it: with a start of its own, which the published layer does not have."""
    state = {name: tensor.float() for name, tensor in tensors("gated_delta_net", {}).items()}
    layer = PublishedLayer("gated_delta_net", H)
    config, _ = layer.settings(state)
    model = LanguageModel(dataclasses.replace(config, layers=2), DesignPoint.parse("gated_delta_net"), 11)
    model.initialise(torch.Generator().manual_seed(3))
    mixer = model.blocks[1].mixer
    with torch.no_grad():
        for parameter in (mixer.start[0], mixer.gates.bias["step"]):
            parameter.fill_(0.5)
    with pytest.raises(WeightsProblem, match="gated_delta_net: mixer: a start of the memory or a bias of a gate"):
        layer.weights(mixer)
    layer.load(mixer, state)
    x = inputs()
    expected = published("gated_delta_net", {}, tensors("gated_delta_net", {}), x)
    assert distance(mixer(x.float())[0], expected) < 1e-5
    assert torch.equal(layer.weights(mixer)["q_conv1d.weight"], state["q_conv1d.weight"])


Change = Callable[[dict[str, Tensor]], object]


def _without(name: str) -> Change:
    return lambda state: state.pop(name)


def _with(name: str, *shape: int) -> Change:
    return lambda state: state.update({name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (
            "gla",
            _without("o_proj.weight"),
            "gla: o_proj.weight: not among the tensors: give all tensors of one layer, without its prefix",
        ),
        (
            "delta_net",
            _without("q_proj.weight"),
            "delta_net: q_proj.weight: not among the tensors: give all tensors of one layer, without its prefix",
        ),
        (
            "gated_delta_net",
            _without("g_proj.weight"),
            "gated_delta_net: g_proj.weight: not among the tensors: set use_gate=False, if that is the layer",
        ),
        (
            "gated_delta_net",
            _without("q_conv1d.weight"),
            "gated_delta_net: q_conv1d.weight: not among the tensors: set use_short_conv=False, if that is the layer",
        ),
        (
            "gla",
            _with("k_conv1d.weight", H * K, 1, TAPS),
            "gla: k_conv1d.weight: the layer has no tensor of that name: set use_short_conv=True, if that is the layer",
        ),
        (
            "delta_net",
            _with("g_proj.weight", H * V, D),
            "delta_net: g_proj.weight: the layer has no tensor of that name: set use_gate=True, if that is the layer",
        ),
        (
            "gated_delta_net",
            _with("q_conv1d.bias", H * K),
            "gated_delta_net: q_conv1d.bias: the layer has no tensor of that name: "
            "leave it out if the layer does nothing with it",
        ),
        (
            "gated_delta_net",
            _with("A_log", 2 * H),
            "gated_delta_net: A_log: its shape is (6,), (3,) fits the others: check num_heads (3)",
        ),
        (
            "gla",  # keys and values shared by heads
            _with("k_proj.weight", K, D),
            "gla: k_proj.weight: its shape is (4, 12), (12, 12) fits the others: check num_heads (3)",
        ),
        (
            "gated_delta_net",  # more values' heads than keys'
            _with("v_proj.weight", 2 * H * V, D),
            "gated_delta_net: v_proj.weight: its shape is (30, 12), (15, 12) fits the others: check num_heads (3)",
        ),
        (
            "delta_net",
            _with("q_proj.weight", 13, D),
            "delta_net: q_proj.weight: 13 rows are not 3 heads: check num_heads",
        ),
        (
            "delta_net",
            _with("o_norm.weight", 1, V),
            "delta_net: o_norm.weight: its shape is (1, 5): give a 1-dimensional tensor that is not empty",
        ),
        (
            "delta_net",
            _with("q_conv1d.weight", H * K, 1, 65),
            "delta_net: model.conv: 65 is not between 0 (none) and 64",
        ),
    ],
)
def test_tensors_of_another_layer_are_refused_in_one_line(kind: str, change: Change, message: str) -> None:
    state = tensors(kind, {})
    change(state)
    with pytest.raises(WeightsProblem) as caught:
        PublishedLayer(kind, H).mixer(state)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("model", "design", "message"),
    [
        ({"d_model": 18}, {}, "delta_net: model.d_model: the mixer has 18, the layer 12: "),
        ({"norm_eps": 1e-5}, {}, "delta_net: model.norm_eps: the mixer has 1e-05, the layer 4e-05: "),
        ({"qk_norm": "none"}, {}, "delta_net: model.qk_norm: the mixer has none, the layer l2: "),
        ({}, {"bias": "dot"}, "delta_net: bias: the mixer's is "),
        ({}, {"step": {"scale": 2.0}}, "delta_net: step: the mixer's is "),
        ({}, {"control": "no_write"}, "delta_net: control: the mixer's is "),
        ({}, {"execution": {"gradient": "frozen"}}, "delta_net: execution: the mixer's is "),
    ],
)
def test_a_mixer_of_another_layer_is_refused(model: dict[str, Any], design: dict[str, Any], message: str) -> None:
    state, layer = tensors("delta_net", {}), PublishedLayer("delta_net", H)
    config, _ = layer.settings(state)
    mixer = Mixer(dataclasses.replace(config, **model), DesignPoint.parse({"preset": "delta_net", **design}))
    mixer.initialise(torch.Generator().manual_seed(0))
    before = mixer.project.weight.detach().clone()
    with pytest.raises(WeightsProblem, match=re.escape(message)):
        layer.load(mixer, state)
    assert torch.equal(mixer.project.weight, before)
    if mixer.config.d_model == D:  # one of other widths is written as what it is
        with pytest.raises(WeightsProblem, match=re.escape(message)):
            layer.weights(mixer)


def test_scaled_steps_have_no_place_in_the_layer() -> None:
    layer = PublishedLayer("delta_net", H)
    mixer = layer.mixer(tensors("delta_net", {}))
    mixer.step_scale = torch.tensor(0.5)
    with pytest.raises(WeightsProblem, match=r"delta_net: step: the mixer's steps are scaled by 0\.5"):
        layer.weights(mixer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "mamba2", "num_heads": 1}, "kind: 'mamba2' is not a layer known here: write one of gated_delta_net,"),
        ({"kind": "gla", "num_heads": 0}, "num_heads: 0 must be at least 1"),
        ({"kind": "gla", "num_heads": 1, "allow_neg_eigval": True}, "allow_neg_eigval: gla has no beta"),
    ],
)
def test_arguments_that_no_layer_has_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsProblem, match=re.escape(message)):
        PublishedLayer(**arguments)


@pytest.mark.parametrize("name", LAYERS)
def test_the_names_and_shapes_are_those_of_the_package(name: str) -> None:
    """Where flash-linear-attention is installed: its own layers give and take the tensors."""
    layers = pytest.importorskip("fla.layers", exc_type=ImportError, reason="fla-core is not installed")
    kind, extra = LAYERS[name]
    widths: dict[str, Any] = {"hidden_size": 16, "num_heads": 2, **extra}
    if kind == "gated_delta_net":
        theirs = layers.GatedDeltaNet(head_dim=6, expand_v=1.5, **widths)
    elif kind == "delta_net":
        theirs = layers.DeltaNet(expand_k=0.5, **widths)
    else:
        widths["use_output_gate"] = widths.pop("use_gate", True)
        theirs = layers.GatedLinearAttention(**widths)
    layer = PublishedLayer(kind, 2, **extra)
    found = layer.weights(layer.mixer(theirs.state_dict()))
    theirs.load_state_dict(found, strict=True)


def test_the_norms_eps_is_a_setting_of_the_model() -> None:
    with pytest.raises(FieldError, match="norm_eps: 0 must be positive"):
        ModelConfig(norm_eps=0.0)
    plain = ModelConfig(output_norm="none")
    assert ModelConfig(output_norm="none", norm_eps=1e-3).canonical() == plain.canonical()
    assert ModelConfig(norm_eps=1e-3).canonical() != ModelConfig().canonical()
    assert "norm_eps" not in ModelConfig().to_plain()


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/weights.md from its first block to its last, on a checkpoint of two layers."""
    monkeypatch.chdir(tmp_path)
    state = tensors("gated_delta_net", {}, heads=4)
    whole = {f"model.layers.{layer}.attn.{name}": x.bfloat16() for layer in (0, 1) for name, x in state.items()}
    save_file(whole | {"model.norm.weight": torch.ones(D)}, "model.safetensors")
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S):
        exec(compile(block, PAGE.name, "exec"), names)
    written = load_file("written.safetensors")
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], state[name].bfloat16().float()) for name in state)
