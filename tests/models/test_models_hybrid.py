"""Hybrids: layers of memory and of sliding-window attention by turns, and what acts on the memories alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from stacked import stacked_equals_a_loop
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree

from miras_search.models import budget, inner_step
from miras_search.models.config import ModelConfig
from miras_search.models.language import Block, LanguageModel
from miras_search.models.layout import layout
from miras_search.models.mixer import Mixer
from miras_search.models.rotary import rotate
from miras_search.space.design import DesignPoint
from miras_search.space.fields import FieldError, build
from miras_search.space.presets import PRESETS, preset
from miras_search.study.levels import preset_model
from miras_search.study.loader import loads

VOCAB = 11
HYBRIDS = ["gated_delta_net_h", "memora_h", "moneta_h", "yaad_h"]
SHAPES: dict[str, object] = {"layers": 2, "d_model": 8, "heads": 2, "attention_window": 5}


def config_of(name: str, **settings: object) -> ModelConfig:
    return preset_model(name, {**SHAPES, **settings}, ("model",))


def model_of(
    name: str, config: ModelConfig | None = None, *, seed: int = 1, control: str = "none", dtype: Any = torch.float64
) -> LanguageModel:
    design = DesignPoint.parse({"preset": name, "control": control})
    model = LanguageModel(config or config_of(name), design, VOCAB)
    model.initialise(torch.Generator().manual_seed(seed))
    return model.to(dtype)


def tokens_of(length: int, batch: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def mixers(model: LanguageModel) -> list[Mixer]:
    found = []
    for block in model.blocks:
        assert isinstance(block, Block)
        found.append(block.mixer)
    return found


def test_every_nth_layer_is_attention() -> None:
    design = preset("yaad")
    for every, layers, expected in ((0, 3, "mmm"), (2, 5, "mamam"), (3, 7, "mmammam"), (2, 2, "ma")):
        config = ModelConfig(layers=layers, d_model=8, attention_every=every, attention_window=7)
        slots = layout(config, design)
        assert "".join("m" if slot.is_memory else "a" for slot in slots) == expected
        for slot in slots:
            if slot.is_memory:
                assert (slot.config, slot.design) == (config, design)
            else:
                assert slot.design == DesignPoint.parse("sliding_window").changed("memory.window", 7)
                own = dict(PRESETS["sliding_window"].model)
                assert {key: getattr(slot.config, key) for key in own} == own
                assert (slot.config.keys, slot.config.values) == (config.keys, config.values)


@pytest.mark.parametrize("settings", [{"normaliser": "sum", "feature_map": "dpfp"}, {"key_dim": 6, "value_dim": 3}])
def test_what_is_around_the_memory_is_not_around_the_attention(settings: dict[str, Any]) -> None:
    config = ModelConfig(layers=2, d_model=8, attention_every=2, **settings)
    memory, attention = layout(config, preset("linear_attention"))
    assert memory.config == config
    assert (attention.config.normaliser, attention.config.feature_map, attention.config.conv) == ("none", "none", 0)
    model = LanguageModel(config, preset("linear_attention"), VOCAB)
    model.initialise(torch.Generator().manual_seed(0))
    assert torch.isfinite(model.stream(tokens_of(9))[0]).all()


def test_the_attention_layer_is_a_transformers() -> None:
    """From its equation: projections, rotary positions, a softmax over the last tokens, and a projection."""
    config = config_of("yaad_h")
    model, tokens, window = model_of("yaad_h"), 11, config.attention_window
    block = model.blocks[1]
    assert isinstance(block, Block)
    x = torch.randn(2, tokens, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found, _ = block(x)
    h = functional.rms_norm(x, (8,), block.mixer_norm, 1e-5)
    q, k, v = (p.view(2, tokens, 2, 4) for p in (h @ block.mixer.project.weight.T).split(8, -1))
    q, k = rotate(q, 0), rotate(k, 0)
    heads = torch.zeros(2, tokens, 2, 4, dtype=torch.float64)
    for t in range(tokens):
        first = max(0, t - window + 1)
        score = torch.einsum("bhk,bshk->bsh", q[:, t], k[:, first : t + 1]) / math.sqrt(4)
        heads[:, t] = torch.einsum("bsh,bshv->bhv", torch.softmax(score, 1), v[:, first : t + 1])
    expected = x + heads.flatten(2) @ block.mixer.out.weight.T
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", HYBRIDS)
def test_a_stream_may_be_cut_anywhere(name: str) -> None:
    model, tokens = model_of(name), tokens_of(19)
    with torch.no_grad():
        whole, final = model.stream(tokens)
        for cuts in ([1], [6, 7, 17], [1, 2, 3, 15, 16, 18]):
            states, pieces = None, []
            for begin, end in zip([0, *cuts], [*cuts, 19], strict=True):
                hidden, states = model.stream(tokens[:, begin:end], states)
                pieces.append(hidden)
            torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-8, atol=1e-8)
            for a, b in zip(pytree.tree_leaves(states), pytree.tree_leaves(final), strict=True):
                if isinstance(a, Tensor):
                    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
                else:
                    assert a == b


@pytest.mark.parametrize("name", HYBRIDS)
def test_the_head_is_evaluated_only_where_labels_are(name: str) -> None:
    model, tokens = model_of(name), tokens_of(13)
    positions = torch.tensor([[0, 12], [3, 4], [5, 11]])
    with torch.no_grad():
        every = model.logits(model.stream(tokens)[0])
        found = model(tokens, positions)
    torch.testing.assert_close(found, torch.stack([row[at] for row, at in zip(every, positions, strict=True)]))


@pytest.mark.parametrize("name", HYBRIDS)
def test_stacked_gradients_equal_a_loop(name: str) -> None:
    models = [model_of(name, seed=seed) for seed in range(3)]
    tokens, labels = tokens_of(18).view(3, 1, 18), tokens_of(18, seed=5).view(3, 1, 18)
    positions = torch.arange(18).expand(3, 1, 18)

    _, gradients = stacked_equals_a_loop(
        models, tokens, positions, labels, of_loss=(1e-10, 1e-11), of_gradient=(1e-8, 1e-10)
    )
    for label, gradient in gradients.items():
        assert gradient.flatten(1).any(1).all(), label


def test_costs_by_hand() -> None:
    """Parameters, state and work of one memory and one attention layer."""
    tokens, window, width, heads, d = 16, 5, 8, 2, 4
    pure = model_of("gated_delta_net", ModelConfig(layers=1, d_model=width, heads=heads), dtype=torch.float32)
    mixed = model_of("gated_delta_net_h", dtype=torch.float32)
    attention = width * 3 * width + width * width
    assert budget.parameters(mixed) - budget.parameters(pure) == attention + width  # its norm
    pair = 4 * heads * (d + d + 1)  # key, value, weight
    for n in (1, 3, 5, 9):
        extra = budget.state_bytes(mixed, n) - budget.state_bytes(pure, n)
        assert extra == pair * min(n, window)
    work = budget.flops_per_token(mixed, tokens) - budget.flops_per_token(pure, tokens)
    assert work == 2 * attention + heads * 2 * tokens * (d + d)  # all scores are formed and masked


def test_a_scale_acts_on_the_memories_alone() -> None:
    model = model_of("yaad_h")
    model.scale_steps(3.0)
    memory, attention = mixers(model)
    assert float(memory.step_scale or 0) == 3.0 == model.step_scale
    assert attention.step_scale is None


def test_the_observer_is_told_of_the_memories_alone() -> None:
    model, seen = model_of("yaad_h", config_of("yaad_h", layers=5)), []
    with model.observed(lambda inputs, start, static: seen.append(len(start))):
        model.stream(tokens_of(6))
    assert seen == [2, 2, 2]  # layers 1, 3 and 5; an attention would have no start
    assert all(mixer.observer is None for mixer in mixers(model))


def test_writes_are_matched_in_the_memories() -> None:
    tokens, config = tokens_of(12), config_of("gated_delta_net_h", layers=4)
    base = model_of("gated_delta_net_h", config)
    model = LanguageModel(config, preset("gated_delta_net").changed("bias", "lp"), VOCAB)
    model.initialise(torch.Generator().manual_seed(1))
    model.double()
    scale = inner_step.match(model, base, tokens)
    assert scale != 1.0
    assert inner_step.write_size(model, tokens) == pytest.approx(inner_step.write_size(base, tokens), rel=1e-4)


@pytest.mark.parametrize("control", ["no_write", "ascent"])
def test_a_control_acts_on_the_memories_alone(control: str) -> None:
    plain, controlled = (model_of("yaad_h", control=c) for c in ("none", control))
    x = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for i, (a, b) in enumerate(zip(plain.blocks, controlled.blocks, strict=True)):
        same = torch.equal(a(x)[0], b(x)[0])
        assert same == (i == 1)
    assert [mixer.design.control.name for mixer in mixers(controlled)] == [control, "none"]


@pytest.mark.parametrize("name", HYBRIDS)
def test_a_hybrid_is_its_memory_with_attention_between(name: str) -> None:
    assert preset(name) == preset(name.removesuffix("_h"))
    pure, hybrid = dict(PRESETS[name.removesuffix("_h")].model), dict(PRESETS[name].model)
    assert hybrid == {**pure, "attention_every": 2}


@pytest.mark.parametrize("name", ["gated_delta_net_h", "moneta_h"])
def test_a_hybrid_trains(name: str) -> None:
    model, tokens, labels = model_of(name, dtype=torch.float32), tokens_of(20, 8), tokens_of(20, 8, seed=5)
    optimiser, losses = torch.optim.Adam(model.parameters(), 1e-2), []
    for _ in range(8):
        logits = model(tokens, torch.arange(20).expand(8, 20))
        loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0] - 0.05


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"attention_every": -1}, "attention_every: -1 must be 0"),
        ({"attention_every": 1}, "attention_every: 1 leaves no memory layer"),
        ({"attention_every": 3}, "attention_every: 3 is more than 2 layers: set layers to 3"),
        ({"attention_every": 2, "key_dim": 3}, "attention_every: .*key dimension 3 is odd"),
        ({"attention_window": 0}, "attention_window: 0 must be at least 1"),
    ],
)
def test_what_is_no_hybrid_is_refused(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(FieldError, match=what):
        ModelConfig(**settings)


def test_settings_that_say_nothing_leave_stored_studies_what_they_are() -> None:
    plain = ModelConfig().to_plain()
    assert "attention_every" not in plain
    assert "attention_window" not in plain
    mixed = ModelConfig(attention_every=2, attention_window=9)
    assert {**plain, "attention_every": 2, "attention_window": 9} == mixed.to_plain()
    assert build(ModelConfig, mixed.to_plain()) == mixed
    assert ModelConfig(attention_window=9).canonical() == ModelConfig().canonical()
    assert mixed.canonical() != ModelConfig(attention_every=2).canonical()


STUDY = """
name: s
question: q?
task: {name: mqar}
model: {layers: 4, d_model: 8, heads: 1}
base: gated_delta_net_h
vary: {bias: [lp], model.attention_window: [8], preset: [gated_delta_net]}
controls: [no_write]
seeds: 2
"""


def test_a_study_of_a_hybrid() -> None:
    """Every cell is one, under a control too, but that of a preset that is none."""
    found = {
        cell.name: (cell.model.attention_every, cell.model.attention_window) for cell in loads(STUDY, "s.yaml").cells
    }
    assert found == {
        "gated_delta_net_h": (2, 32),
        "lp(p=1.5)": (2, 32),
        "attention_window=8": (2, 8),
        "gated_delta_net": (0, 32),
        "gated_delta_net_h + no_write": (2, 32),
    }


def test_a_study_from_before_hybrids_keeps_its_hash() -> None:
    """A database finds a study by this number: results of before stay usable."""
    before = """
name: s
question: q?
task: {name: mqar}
model: {layers: 1, d_model: 8, heads: 1}
base: delta_net
execution: {chunk: 16, gradient: frozen}
vary: {bias: [dot]}
seeds: 2
"""
    study = loads(before, "s.yaml")
    assert study.space_hash[:16] == "092cb66ee7321b96"
    assert study.config_hash[:16] == "1019155bd3338a52"
