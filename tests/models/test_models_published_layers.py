"""Layers of presets as their papers have them: the gates from the parameters, and whole layers in a parallel form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from miras_search.models.config import ModelConfig
from miras_search.models.gates import Gates
from miras_search.models.mixer import Mixer
from miras_search.space.design import DesignPoint
from miras_search.space.fields import build
from miras_search.space.presets import PRESETS, preset

BATCH, TOKENS, HEADS, KEYS, VALUES = 2, 11, 4, 6, 3
F64 = torch.float64


def gates_of(design: object, *, wide: float = 1.0) -> tuple[Gates, Tensor]:
    """The gates of a design with random parameters, and random raw projections for them."""
    generator = torch.Generator().manual_seed(1)
    gates = Gates(DesignPoint.parse(design), HEADS, KEYS, VALUES).double()
    gates.initialise(generator)
    with torch.no_grad():
        for parameter in gates.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=F64))
    return gates, wide * torch.randn(BATCH, TOKENS, gates.width, generator=generator, dtype=F64)


def by_channel(x: Tensor) -> Tensor:
    return x.view(*x.shape[:-1], HEADS, KEYS)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_glas_gate_is_the_sixteenth_root_of_a_low_rank_sigmoid() -> None:
    gates, raw = gates_of("gla")
    assert raw.shape[-1] == 16
    logits = raw @ gates.widen["keep"] + gates.bias["keep"]
    close(gates(raw)["keep"].exp(), by_channel((1 / (1 + torch.exp(-logits))) ** (1 / 16)))
    assert torch.all(gates(100 * raw)["keep"].exp() > 0)


def test_mamba2_decays_by_what_it_writes() -> None:
    gates, raw = gates_of("mamba2")
    assert raw.shape[-1] == HEADS  # one projection for both
    d = torch.log(1 + torch.exp(raw + gates.bias["step"]))
    close(gates(raw)["step"].squeeze(2), d)
    close(gates(raw)["keep"], -d * torch.exp(gates.log_rate["keep"]))


def test_hgrn2_keeps_at_least_its_floor_and_takes_in_the_rest() -> None:
    gates, raw = gates_of("hgrn2", wide=30.0)
    keep = gates(raw)["keep"].exp()
    close(keep, by_channel(0.5 + 0.5 * torch.sigmoid(raw + gates.bias["keep"])))
    assert 0.5 <= keep.min() < 0.5001
    layer = layer_of("hgrn2")
    assert layer.widths[1] == 0  # nothing is projected for keys
    seen = watched(layer)
    close(seen["k"], 1 - seen["log_keep"].exp())


def test_dfw_has_a_decay_for_every_weight() -> None:
    gates, raw = gates_of("dfw")
    close(gates(raw)["keep"].exp(), torch.sigmoid(raw + gates.bias["keep"]).view(BATCH, TOKENS, HEADS, KEYS + VALUES))


def test_rwkv7_never_keeps_less_than_its_floor() -> None:
    gates, raw = gates_of("rwkv7", wide=300.0)
    logits = raw[..., gates.slices["keep"]] @ gates.widen["keep"] + gates.bias["keep"]
    keep = gates(raw)["keep"].exp()
    close(keep, by_channel(torch.exp(-math.exp(-0.5) * torch.sigmoid(logits))))
    assert math.exp(-math.exp(-0.5)) <= keep.min() < 0.546
    assert keep.max() <= 1
    seen = watched(layer_of("rwkv7"))
    lengths = seen["k"][:, ::2].norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=1e-5)
    assert seen["w"][:, 1::2].norm(dim=-1).std() > 0.1  # the replacement key keeps its own


def test_kdas_decay_is_gated_delta_nets_by_key_channel() -> None:
    gates, raw = gates_of("kda")
    logits = raw[..., gates.slices["keep"]] @ gates.widen["keep"] + gates.bias["keep"]
    close(gates(raw)["keep"], by_channel(-torch.exp(gates.log_rate["keep"]) * torch.log(1 + torch.exp(logits))))
    one, given = gates_of("gated_delta_net")
    logits = given[..., one.slices["keep"]] + one.bias["keep"]
    close(one(given)["keep"], -torch.exp(one.log_rate["keep"]) * torch.log(1 + torch.exp(logits)))


def test_steps_of_the_delta_family() -> None:
    for name, reach in (("delta_net", 1.0), ("kda", 1.0), ("delta_product", 2.0)):
        gates, raw = gates_of(name)
        found = gates(raw)["step"]
        logits = raw[..., gates.slices["step"]] + gates.bias["step"]
        close(found.flatten(2), reach * torch.sigmoid(logits))
    gates, raw = gates_of("longhorn")
    close(gates(raw)["step"].flatten(2), torch.sigmoid(raw + gates.bias["step"]))
    assert gates(raw)["step"].shape == (BATCH, TOKENS, 1, HEADS, VALUES)


# The ladder


def test_retnets_heads_halve_what_they_forget() -> None:
    gates, raw = gates_of("retnet")
    assert not list(gates.parameters())
    keep = gates(raw)["keep"]
    assert keep.shape == (BATCH, TOKENS, HEADS)
    close(keep.exp(), torch.tensor([1 - 2.0 ** (-5 - h) for h in range(HEADS)], dtype=F64).expand_as(keep))


def test_lightnings_heads_have_alibis_slopes() -> None:
    """For 4 heads 1/4, 1/16, 1/64, 1/256; for 8 heads ALiBi's 1/2 to 1/256."""
    gates, raw = gates_of("lightning")
    slopes = torch.tensor([1 / 4, 1 / 16, 1 / 64, 1 / 256], dtype=F64)
    close(gates(raw)["keep"], -slopes.expand(BATCH, TOKENS, HEADS))
    rungs = preset("lightning").retention.keep.rungs(8)
    assert [-math.log(rung) for rung in rungs] == pytest.approx([2.0**-h for h in range(1, 9)])


@pytest.mark.parametrize(
    "settings",
    [
        {"source": "learned"},
        {"source": "data"},
        {"source": "data", "scope": "key", "rank": 2},
        {"source": "data", "scope": "key", "temper": 4.0},
        {"source": "data", "scope": "key_value"},
        {"source": "learned", "squash": "mamba"},
        {"source": "data", "squash": "rwkv", "scope": "value"},
        {"source": "learned", "squash": "mamba", "tie": "step"},
    ],
)
@pytest.mark.parametrize("ladder", ["halving", "slopes"])
def test_trained_gates_start_on_the_ladder(settings: dict[str, object], ladder: str) -> None:
    keep = {**settings, "ladder": ladder, "value": 0.9}
    design = DesignPoint.parse({"retention": {"l2": {"keep": keep}}, "step": {"source": "data", "value": 0.3}})
    gates = Gates(design, HEADS, KEYS, VALUES).double()
    gates.initialise(torch.Generator().manual_seed(0))
    found = gates(torch.zeros(1, 1, gates.width, dtype=F64))["keep"]
    if settings.get("scope") == "key_value":
        found = found[..., :1] + found[..., -1:]
    expected = torch.tensor(design.retention.keep.rungs(HEADS), dtype=F64)
    close(found.exp().view(HEADS, -1), expected.unsqueeze(-1).expand(HEADS, found[0, 0, 0].numel()))


# Whole layers


def layer_of(name: str) -> Mixer:
    """One layer of a preset as published, random parameters throughout."""
    config = build(
        ModelConfig, {"d_model": 8, "heads": HEADS, "key_dim": KEYS, "value_dim": VALUES, **PRESETS[name].model}, ()
    )
    layer, generator = Mixer(config, preset(name)).double(), torch.Generator().manual_seed(3)
    layer.initialise(generator)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=F64))
    return layer


def given() -> Tensor:
    return torch.randn(BATCH, TOKENS, 8, generator=torch.Generator().manual_seed(4), dtype=F64)


def watched(layer: Mixer) -> dict[str, Tensor]:
    """What the layer's memory is given."""
    seen: dict[str, Tensor] = {}
    layer.observer = lambda inputs, start, static: seen.update(inputs._asdict())
    layer(given())
    return seen


def parts(layer: Mixer) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k [B,H,T,K], v [B,H,T,V] and the output gate [B,T,H,V], as the input is projected."""
    raw = given() @ layer.project.weight.T
    q, k, v, gate = torch.split(
        raw, [HEADS * KEYS, HEADS * KEYS, HEADS * VALUES, raw.shape[-1] - HEADS * (2 * KEYS + VALUES)], -1
    )
    q, k, v = (x.view(BATCH, TOKENS, HEADS, -1).transpose(1, 2) for x in (q, k, v))
    return q, k, v, gate


def normed(y: Tensor, weight: nn.Parameter | None) -> Tensor:
    """RMS norm over a head's channels."""
    assert weight is not None
    return weight * y / torch.sqrt((y**2).mean(-1, keepdim=True) + 1e-5)


def test_retnet_is_its_parallel_form() -> None:
    """(Q K^T * D) V with D_nm = g^(n-m), rotary positions, a norm a head and a gate; no activation, no convolution."""
    layer = layer_of("retnet")
    q, k, v, gate = parts(layer)
    n = torch.arange(TOKENS, dtype=F64)
    theta = 10_000.0 ** (-2 * torch.arange(KEYS // 2, dtype=F64) / KEYS)
    q, k = (
        torch.complex(*x.chunk(2, -1)) * torch.polar(torch.ones(TOKENS, KEYS // 2, dtype=F64), n[:, None] * theta)
        for x in (q, k)
    )
    g = 1 - 2.0 ** (-5 - torch.arange(HEADS, dtype=F64))
    decay = (g[:, None, None] ** (n[:, None] - n).clamp(min=0)).tril()
    y = ((q @ k.conj().transpose(-1, -2)).real * decay) @ v
    y = normed(y.transpose(1, 2), layer.norm) * functional.silu(gate).view(BATCH, TOKENS, HEADS, VALUES)
    close(layer(given())[0], y.flatten(2) @ layer.out.weight.T)


def test_linear_attention_is_its_parallel_form() -> None:
    """A row of phi(Q) phi(K)^T divided by its sum; nothing else around it."""
    layer = layer_of("linear_attention")
    q, k, v, gate = parts(layer)
    assert gate.shape[-1] == 0
    weights = ((functional.elu(q) + 1) @ (functional.elu(k) + 1).transpose(-1, -2)).tril()
    y = (weights @ v) / (weights.sum(-1, keepdim=True) + 1e-6)
    assert layer.norm is None
    close(layer(given())[0], y.transpose(1, 2).flatten(2) @ layer.out.weight.T)


def test_lightning_is_its_parallel_form() -> None:
    layer = layer_of("lightning")
    q, k, v, gate = parts(layer)
    q, k, v = map(functional.silu, (q, k, v))
    n = torch.arange(TOKENS, dtype=F64)
    slopes = 2.0 ** (-8 * torch.arange(1, HEADS + 1, dtype=F64) / HEADS)
    decay = torch.exp(-slopes[:, None, None] * (n[:, None] - n)).tril()
    y = normed(((q @ k.transpose(-1, -2) * decay) @ v).transpose(1, 2), layer.norm)
    close(layer(given())[0], (y.flatten(2) * functional.silu(gate)) @ layer.out.weight.T)


@pytest.mark.parametrize("name", ["gla", "mamba2", "hgrn2", "dfw", "longhorn", "rwkv7", "kda", "retnet", "lightning"])
def test_published_layers_stream_as_they_run(name: str) -> None:
    """A layer cut anywhere goes on as if it had not been: positions, convolution and memory."""
    layer, x = layer_of(name), given()
    whole, _ = layer(x)
    first, state = layer(x[:, :4])
    second, _ = layer(x[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-9, atol=1e-10)
