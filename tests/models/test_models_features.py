"""Options of the mixer around a memory: feature maps, lengths, rotation, normaliser, output norm, K != V."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from stacked import stacked_equals_a_loop
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree

from miras_search.models import features, fit
from miras_search.models.config import ModelConfig
from miras_search.models.language import LanguageModel
from miras_search.models.mixer import Mixer
from miras_search.models.rotary import rotate
from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError, build, to_plain

VOCAB = 11
LINEAR = {"preset": "linear_attention"}
REFINED = {"preset": "delta_net", "execution": {"gradient": {"refined": 2}, "chunk": 4}}
OPTIONS: dict[str, tuple[object, dict[str, object]]] = {
    "elu1": (REFINED, {"feature_map": "elu1"}),
    "silu on q, k alone": ("delta_net", {"feature_map": "silu", "activation": "none"}),
    "softmax": ("gated_delta_net", {"feature_map": "softmax"}),
    "relu": ({"preset": "yaad", "execution": {"chunk": 4}}, {"feature_map": "relu"}),
    "dpfp": ("delta_net", {"feature_map": "dpfp"}),
    "dpfp, deep": ({"memory": {"mlp": {"residual": False, "expansion": 1}}}, {"feature_map": "dpfp"}),
    "no activation": ("delta_net", {"activation": "none"}),
    "rms": ({"preset": "delta_net", "step": 0.1}, {"qk_norm": "rms"}),
    "no length": ({"preset": "delta_net", "step": 0.1}, {"qk_norm": "none"}),
    "rope": (REFINED, {"rope": True}),
    "rope of several writes": ("delta_product", {"rope": True, "feature_map": "dpfp"}),
    "rope of repeated writes": (
        {"algorithm": {"multi_step": {"writes": 3, "own_keys": False}}, "step": 0.2},
        {"rope": True},
    ),
    "no output norm": ("delta_net", {"output_norm": "none"}),
    "bare layer": (
        "delta_net",
        {"output_norm": "none", "output_gate": False, "conv": 0, "activation": "none", "qk_norm": "none"},
    ),
    "normaliser": (LINEAR, {"feature_map": "elu1", "qk_norm": "none", "normaliser": "sum"}),
    "normaliser with decay": (
        {**LINEAR, "retention": "l2", "step": "data"},
        {"feature_map": "relu", "normaliser": "sum", "output_norm": "none"},
    ),
    "unequal, deep": ({"memory": {"mlp": {"residual": False}}}, {"key_dim": 3, "value_dim": 5}),
    "unequal, gated": (
        {"memory": {"gated_mlp": {"residual": False}}, "step": 0.1, "execution": {"gradient": "frozen", "chunk": 4}},
        {"key_dim": 2, "value_dim": 6, "rope": True},
    ),
}
SMALL = {"layers": 2, "d_model": 8, "heads": 2}


def config_of(name: str) -> ModelConfig:
    return build(ModelConfig, {**SMALL, **OPTIONS[name][1]})


def model_of(name: str, seed: int = 1) -> LanguageModel:
    model = LanguageModel(config_of(name), DesignPoint.parse(OPTIONS[name][0]), VOCAB)
    model.initialise(torch.Generator().manual_seed(seed))
    return model.double()


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens_of(length: int, batch: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def test_the_default_model_starts_as_it_always_did() -> None:
    """Stored studies repeat: no option may draw a number before those that were drawn already."""
    config = ModelConfig(layers=2, d_model=16, heads=2, feed_forward="swiglu")
    model = LanguageModel(config, DesignPoint.parse("titans_lmm"), VOCAB)
    model.initialise(torch.Generator().manual_seed(7))
    found = {}
    for label, p in model.named_parameters():
        if ".gates." in label:  # not drawn: they start at the values that the design gives
            continue
        flat = p.detach().double().flatten()
        found[label] = float(flat @ torch.cos(torch.arange(flat.numel(), dtype=torch.float64)))
    assert list(found) == list(PINNED)
    assert found == pytest.approx(PINNED, rel=1e-5, abs=1e-6)


PINNED = {
    "embedding": 0.212944003,
    "norm": 0.715327997,
    "head": -1.11490563,
    "blocks.0.mixer_norm": 0.715327997,
    "blocks.0.feed_forward_norm": 0.715327997,
    "blocks.0.mixer.norm": 1.47825408,
    "blocks.0.mixer.project.weight": 2.93162319,
    "blocks.0.mixer.conv.weight": -3.24446941,
    "blocks.0.mixer.start.0": 7.07966464,
    "blocks.0.mixer.start.1": -0.84130218,
    "blocks.0.mixer.out.weight": -3.63598547,
    "blocks.0.feed_forward.up.weight": -1.03630647,
    "blocks.0.feed_forward.down.weight": -1.30237564,
    "blocks.1.mixer_norm": 0.715327997,
    "blocks.1.feed_forward_norm": 0.715327997,
    "blocks.1.mixer.norm": 1.47825408,
    "blocks.1.mixer.project.weight": 8.20283849,
    "blocks.1.mixer.conv.weight": -2.98302609,
    "blocks.1.mixer.start.0": 0.436167939,
    "blocks.1.mixer.start.1": -5.76655785,
    "blocks.1.mixer.out.weight": 3.40312848,
    "blocks.1.feed_forward.up.weight": 2.74201061,
    "blocks.1.feed_forward.down.weight": -3.8707912,
}


def test_a_stored_configuration_without_the_options_is_todays_default() -> None:
    old = {
        "layers": 2, "d_model": 32, "heads": 2, "key_dim": None, "value_dim": None, "conv": 4, "output_gate": True,
        "feed_forward": "none", "feed_forward_ratio": 2.0, "tie_embeddings": False, "init_scale": 1.0,
    }  # fmt: skip
    assert build(ModelConfig, old) == ModelConfig()
    assert build(ModelConfig, to_plain(config_of("dpfp"))) == config_of("dpfp")


@pytest.mark.parametrize("name", OPTIONS)
def test_a_stream_may_be_cut_anywhere(name: str) -> None:
    model, tokens = model_of(name), tokens_of(13)
    with torch.no_grad():
        whole, final = model.stream(tokens)
        for cuts in ([1], [2, 4], [6, 7, 12], list(range(1, 13))):
            states, pieces = None, []
            for begin, end in itertools.pairwise([0, *cuts, 13]):
                hidden, states = model.stream(tokens[:, begin:end], states)
                pieces.append(hidden)
            torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-9, atol=1e-9)
            assert states is not None
            for a, b in zip(pytree.tree_leaves(states), pytree.tree_leaves(final), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
            assert [state.position for state in states] == [13, 13]


@pytest.mark.parametrize("name", OPTIONS)
def test_later_tokens_do_not_matter(name: str) -> None:
    model, tokens, seen = model_of(name), tokens_of(13), 7
    changed = torch.cat([tokens[:, :seen], (tokens[:, seen:] + 1) % VOCAB], 1)
    with torch.no_grad():
        a, b = model.stream(tokens)[0], model.stream(changed)[0]
    assert torch.equal(a[:, :seen], b[:, :seen])
    assert not torch.isclose(a[:, seen:], b[:, seen:]).all(-1).any()


@pytest.mark.parametrize("name", OPTIONS)
def test_stacked_gradients_equal_a_loop_and_reach_every_parameter(name: str) -> None:
    models = [model_of(name, seed) for seed in range(2)]
    tokens = torch.stack([tokens_of(9, batch=2, seed=seed) for seed in range(2)])
    positions = torch.tensor([[2, 8], [5, 7]]).expand(2, 2, 2)
    labels = torch.stack([tokens_of(2, batch=2, seed=seed) for seed in (8, 9)])

    losses, _ = stacked_equals_a_loop(models, tokens, positions, labels)
    assert not torch.isclose(losses[0], losses[1])


def test_feature_maps_by_hand() -> None:
    x = torch.tensor([[-1.0, 0.0, 2.0]], dtype=torch.float64)
    assert features.mapped("none", x) is x
    by_hand = {
        "elu1": [math.exp(-1), 1.0, 3.0],
        "silu": [-1 / (1 + math.e), 0.0, 2 / (1 + math.exp(-2))],
        "softmax": [math.exp(e) / (math.exp(-1) + 1 + math.exp(2)) for e in (-1, 0, 2)],
        "relu": [0.0, 0.0, 2.0],
    }
    for name, expected in by_hand.items():
        torch.testing.assert_close(features.mapped(name, x), torch.tensor([expected], dtype=torch.float64))


def test_dpfp_is_the_sum_over_its_definition() -> None:
    x = normal(2, 3, 2, 5, seed=1)
    found, r = features.mapped("dpfp", x), torch.relu(torch.cat([x, -x], -1))
    assert found.shape[-1] == build(ModelConfig, {"key_dim": 5, "feature_map": "dpfp"}).memory_keys == 30
    for j, i in itertools.product((1, 2, 3), range(10)):
        torch.testing.assert_close(found[..., (j - 1) * 10 + i], r[..., i] * r[..., (i - j) % 10])


@pytest.mark.parametrize(("name", "length"), [("l2", 1.0), ("rms", math.sqrt(6))])
def test_lengths(name: str, length: float) -> None:
    x = normal(2, 3, 2, 6, seed=1)
    found = features.normalised(name, x)
    torch.testing.assert_close(
        found.norm(dim=-1), torch.full((2, 3, 2), length, dtype=torch.float64), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(functional.normalize(found, dim=-1), functional.normalize(x, dim=-1))
    assert not features.normalised(name, torch.zeros(3)).any()


def test_a_feature_map_takes_the_activations_place_on_q_and_k_only() -> None:
    qkv = normal(1, 2, 9, seed=1)
    silu = functional.silu(qkv)
    assert torch.equal(features.activate(ModelConfig(), qkv, 3), silu)
    assert torch.equal(features.activate(ModelConfig(activation="none"), qkv, 3), qkv)
    mapped = features.activate(ModelConfig(feature_map="elu1"), qkv, 3)
    assert torch.equal(mapped, torch.cat([qkv[..., :6], silu[..., 6:]], -1))


def test_silu_as_feature_map_and_as_activation_is_one_model() -> None:
    one, two = ModelConfig(), ModelConfig(feature_map="silu")
    assert one.canonical() == two.canonical() != ModelConfig(feature_map="silu", activation="none").canonical()
    outputs = []
    for config in (one, two):
        model = LanguageModel(config, DesignPoint.parse("delta_net"), VOCAB)
        model.initialise(torch.Generator().manual_seed(1))
        outputs.append(model.stream(tokens_of(9))[0])
    torch.testing.assert_close(*outputs)


def test_rotation_keeps_lengths_and_depends_on_distances_alone() -> None:
    q, k = normal(1, 1, 1, 8, seed=1), normal(1, 1, 1, 8, seed=2)
    assert torch.equal(rotate(q, 0), q)
    torch.testing.assert_close(rotate(q, 12345).norm(), q.norm())
    near, far = ((rotate(q, base + 5) * rotate(k, base)).sum() for base in (2, 90_000))
    torch.testing.assert_close(near, far, rtol=1e-9, atol=1e-9)
    assert not torch.isclose(near, (rotate(q, 8) * rotate(k, 2)).sum())


def test_rotation_by_complex_numbers() -> None:
    x = normal(2, 6, 3, 4, seed=3)  # three tokens of two writes
    z = torch.complex(x[..., :2], x[..., 2:])
    positions = torch.tensor([7, 7, 8, 8, 9, 9], dtype=torch.float64)
    turn = torch.polar(torch.ones(6, 2, dtype=torch.float64), positions[:, None] * torch.tensor([1.0, 1e-2]))
    expected = torch.view_as_real(z * turn[:, None])
    torch.testing.assert_close(rotate(x, 7, repeats=2), torch.cat([expected[..., 0], expected[..., 1]], -1))


def test_a_read_is_a_weighted_mean_of_the_values() -> None:
    """The loop of the definition: y_t = sum_s w_s (q_t.k_s) v_s / sum_s w_s (q_t.k_s), w = step times what is kept."""
    config = ModelConfig(d_model=8, heads=2, feature_map="elu1", normaliser="sum", output_norm="none", value_dim=3)
    design = DesignPoint.parse({"bias": "dot", "retention": "l2", "step": "data"})
    mixer = Mixer(config, design).double()
    mixer.initialise(torch.Generator().manual_seed(3))
    assert not list(mixer.start)
    qkv, raw = normal(2, 7, sum(mixer.widths), seed=1), normal(2, 7, mixer.gates.width, seed=2)
    found, _ = mixer._remember(qkv, raw, None)
    inputs = mixer._inputs(qkv, mixer.gates(raw))
    for t in range(7):
        kept = torch.stack([inputs.log_keep[:, s + 1 : t + 1].sum(1) for s in range(t + 1)], 1)
        past = slice(0, t + 1)
        weights = inputs.step[:, past] * kept.exp() * (inputs.k[:, past] * inputs.q[:, t : t + 1]).sum(-1)
        assert (weights > 0).all()
        mean = (weights.unsqueeze(-1) * inputs.v[:, past, :, :3]).sum(1) / weights.sum(1).unsqueeze(-1)
        torch.testing.assert_close(found[:, t], mean.flatten(1), rtol=1e-4, atol=1e-6)


def test_a_normalised_memory_without_writes_reads_nothing() -> None:
    design = DesignPoint.parse({**LINEAR, "control": "no_write"})
    mixer = Mixer(config_of("normaliser"), design).double()
    mixer.initialise(torch.Generator().manual_seed(3))
    y, _ = mixer(normal(1, 5, 8, seed=1))
    assert not y.any()


def test_output_norm_has_a_scale_only_where_it_is() -> None:
    counts = []
    for norm in ("rms", "none"):
        mixer = Mixer(build(ModelConfig, {**SMALL, "output_norm": norm}), DesignPoint.parse("delta_net"))
        counts.append(sum(p.numel() for p in mixer.parameters()))
    assert counts[0] - counts[1] == 4


def test_wider_keys_make_a_wider_memory_and_no_wider_projection() -> None:
    plain, wide = (
        Mixer(build(ModelConfig, {**SMALL, "feature_map": name}), DesignPoint.parse("delta_net"))
        for name in ("relu", "dpfp")
    )
    assert plain.project.weight.shape == wide.project.weight.shape
    assert [p.shape for p in plain.start] == [(2, 4, 4)]
    assert [p.shape for p in wide.start] == [(2, 24, 4)]
    with pytest.raises(SpecError, match="memory: a residual memory adds its input"):
        LanguageModel(build(ModelConfig, {**SMALL, "feature_map": "dpfp"}), DesignPoint.parse("yaad"), VOCAB)
    square = build(ModelConfig, {**SMALL, "feature_map": "dpfp", "key_dim": 2, "value_dim": 12})
    LanguageModel(square, DesignPoint.parse("yaad"), VOCAB)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rope": True, "key_dim": 3},
         "m.rope: channels are turned in pairs and the key dimension 3 is odd: set key_dim to an even number"),
        ({"normaliser": "sum"},
         "m.normaliser: q.z is a sum of weights only where no feature is negative: set feature_map to one of elu1, "
         "softmax, relu, dpfp"),
        ({"normaliser": "sum", "feature_map": "relu", "rope": True},
         "m.normaliser: a turned feature can be negative and q.z near 0: set rope: false"),
        ({"feature_map": "elu"},
         "m.feature_map: 'elu' is not one of none, elu1, silu, softmax, relu, dpfp (did you mean 'relu'?)"),
        ({"qk_norm": "l1"}, "m.qk_norm: 'l1' is not one of l2, rms, none (known: l2, none, rms)"),
        ({"rope": 1}, "m.rope: expected true or false, got 1"),
    ],
)  # fmt: skip
def test_bad_options_are_named(settings: object, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(ModelConfig, settings, ("m",))
    assert str(caught.value) == message
    build(ModelConfig, {"rope": True, "key_dim": 3, "feature_map": "dpfp"})  # 18 channels


def test_a_key_that_is_the_decay_is_not_turned() -> None:
    point = DesignPoint.parse({"bias": "dot", "retention": {"l2": {"keep": {"scope": "key", "tie": "key"}}}})
    (problem,) = fit.violations(point, ModelConfig(rope=True))
    assert str(problem) == (
        "retention.keep.tie: model.rope turns queries and keys, and a key that is tied to the decay cannot be turned: "
        "set model.rope: false or tie: none"
    )
    assert not fit.violations(point, ModelConfig())


@pytest.mark.parametrize(
    ("design", "place"),
    [
        ({"bias": "dot", "memory": "mlp"}, "memory"),
        ({"bias": "l2"}, "bias"),
        ({"bias": "dot", "retention": "kl"}, "retention"),
        ({"bias": "dot", "retention": {"l2": {"keep": {"scope": "value"}}}}, "step"),
        ({"bias": "dot", "control": "ascent"}, "control"),
    ],
)
def test_the_normaliser_refuses_what_it_cannot_divide(design: dict[str, object], place: str) -> None:
    config, point = config_of("normaliser"), DesignPoint.parse(design)
    with pytest.raises(SpecError) as caught:
        LanguageModel(config, point, VOCAB)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{place}: model.normaliser: sum divides by the sum of the keys written, which ")
    assert not fit.violations(point, dataclasses.replace(config, normaliser="none"))
    assert not fit.violations(DesignPoint.parse({**LINEAR, "control": "no_write"}), config)
