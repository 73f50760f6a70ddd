"""The language model: shapes, reproducible starts, streams cut anywhere, causality, counts, the sparse head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from miras_search.models.config import ModelConfig
from miras_search.models.language import LanguageModel
from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError, build
from miras_search.space.presets import PRESETS

VOCAB = 11
SMALL = ModelConfig(layers=2, d_model=8, heads=2)
REFINED = {"preset": "delta_net", "execution": {"gradient": {"refined": 2}, "chunk": 4}}
DESIGNS: dict[str, object] = {
    **{name: name for name in PRESETS},
    "delta_net refined": REFINED,
    "titans short chunks": {"preset": "titans_lmm", "execution": {"chunk": 4}},
    "huber refined": {
        "bias": {"huber": {"delta": {"source": "data", "squash": "softplus", "value": 1.0}}},
        "retention": "l2",
        "algorithm": "momentum",
        "execution": {"gradient": {"refined": 1}, "gradient_at": "decayed", "chunk": 3},
    },
    "memora by chunk": {"preset": "memora", "execution": {"link_refresh": "chunk", "chunk": 4}},
    "one pair, three steps": {
        "algorithm": {"multi_step": {"writes": 3, "own_keys": False}},
        "retention": "l2",
        "step": {"source": "learned", "value": 0.2},
    },
    "affine glu": {"memory": {"gated_mlp": {"expansion": 2, "affine": True}}, "step": {"value": 0.1}},
}


def model_of(
    design: object, config: ModelConfig = SMALL, *, seed: int = 1, dtype: torch.dtype = torch.float64
) -> LanguageModel:
    model = LanguageModel(config, DesignPoint.parse(design), VOCAB)
    model.initialise(torch.Generator().manual_seed(seed))
    return model.to(dtype)


def tokens_of(length: int, batch: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", DESIGNS)
def test_shapes(name: str) -> None:
    config = ModelConfig(layers=2, d_model=12, heads=2, key_dim=5, value_dim=5, feed_forward="swiglu")
    model = model_of(DESIGNS[name], config, dtype=torch.float32)
    tokens, positions = tokens_of(9), torch.tensor([[0, 3], [8, 8], [1, 2]])
    assert model(tokens, positions).shape == (3, 2, VOCAB)
    hidden, states = model.stream(tokens)
    assert hidden.shape == (3, 9, 12)
    assert len(states) == 2
    assert model.logits(hidden).dtype == torch.float32


@pytest.mark.parametrize("name", ["delta_net", "gated_delta_net", "delta_product"])
def test_key_and_value_dimensions_may_differ_in_a_matrix_memory(name: str) -> None:
    model = model_of(name, ModelConfig(layers=1, d_model=12, heads=3, key_dim=2, value_dim=7))
    hidden, states = model.stream(tokens_of(5))
    assert hidden.shape == (3, 5, 12)
    assert states[0].memory.dual[0].shape == (3, 3, 2, 7)


def test_a_residual_memory_refuses_unequal_dimensions_with_the_reason() -> None:
    config = ModelConfig(d_model=8, heads=2, key_dim=4, value_dim=6)
    with pytest.raises(SpecError) as caught:
        LanguageModel(config, DesignPoint.parse("yaad"), VOCAB)
    assert str(caught.value) == (
        "memory: a residual memory adds its input to its output, so key and value dimensions must be equal: "
        "set residual: false or model.value_dim to model.key_dim"
    )
    LanguageModel(config, DesignPoint.parse("yaad").changed("memory.residual", False), VOCAB)


@pytest.mark.parametrize("name", DESIGNS)
def test_initialise_draws_everything_from_its_generator(name: str) -> None:
    first, again, other = (model_of(DESIGNS[name], seed=seed, dtype=torch.float32) for seed in (1, 1, 2))
    differing = set()
    for (label, a), b, c in zip(first.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), label
        assert torch.isfinite(a).all(), label
        if not torch.equal(a, c):
            differing.add(label.split(".")[-1] if "start" not in label else "start")
    assert {"embedding", "head", "weight"} <= differing
    memory = DesignPoint.parse(DESIGNS[name]).memory
    assert ("start" in differing) == (not memory.bare and not memory.is_kernel)  # a matrix starts empty
    tokens, positions = tokens_of(7), torch.tensor([[6], [6], [6]])
    assert torch.equal(first(tokens, positions), again(tokens, positions))


def cut(model: LanguageModel, tokens: Tensor, cuts: list[int]) -> tuple[Tensor, object]:
    states, pieces = None, []
    for begin, end in zip([0, *cuts], [*cuts, tokens.shape[1]], strict=True):
        hidden, states = model.stream(tokens[:, begin:end], states)
        pieces.append(hidden)
    return torch.cat(pieces, 1), states


@pytest.mark.parametrize("name", DESIGNS)
def test_a_stream_may_be_cut_anywhere(name: str) -> None:
    model, tokens = model_of(DESIGNS[name]), tokens_of(13)
    with torch.no_grad():
        whole, final = model.stream(tokens)
        for cuts in ([1], [2, 4], [6, 7, 12], list(range(1, 13))):
            found, states = cut(model, tokens, cuts)
            torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-9)
            for a, b in zip(pytree.tree_leaves(states), pytree.tree_leaves(final), strict=True):
                if isinstance(a, Tensor):
                    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
                else:
                    assert a == b


@pytest.mark.parametrize("name", DESIGNS)
def test_later_tokens_do_not_matter(name: str) -> None:
    model, tokens, seen = model_of(DESIGNS[name]), tokens_of(13), 7
    changed = torch.cat([tokens[:, :seen], (tokens[:, seen:] + 1) % VOCAB], 1)
    with torch.no_grad():
        a, b = model.stream(tokens)[0], model.stream(changed)[0]
    assert torch.equal(a[:, :seen], b[:, :seen])
    assert not torch.isclose(a[:, seen:], b[:, seen:]).all(-1).any()


@pytest.mark.parametrize("name", ["delta_net", "yaad"])
def test_earlier_tokens_do_matter(name: str) -> None:
    """Beyond the convolution's reach: the memory carries them."""
    model, tokens = model_of(name, ModelConfig(layers=1, d_model=8, heads=2)), tokens_of(13)
    changed = torch.cat([(tokens[:, :1] + 1) % VOCAB, tokens[:, 1:]], 1)
    with torch.no_grad():
        a, b = model.stream(tokens)[0], model.stream(changed)[0]
    assert not torch.isclose(a[:, -1], b[:, -1]).all(-1).any()


@pytest.mark.parametrize("tied", [False, True])
def test_the_sparse_head_is_the_dense_head_at_its_positions(tied: bool) -> None:
    model = model_of("delta_net", ModelConfig(layers=1, d_model=8, heads=2, tie_embeddings=tied))
    tokens, positions = tokens_of(9), torch.tensor([[8, 0, 3], [1, 1, 2], [4, 7, 5]])
    leaves = list(model.parameters())
    weights = torch.randn(3, 3, VOCAB, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    dense = model.logits(model.stream(tokens)[0])[torch.arange(3).unsqueeze(-1), positions]
    sparse = model(tokens, positions)
    torch.testing.assert_close(sparse, dense, rtol=1e-12, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad((sparse * weights).sum(), leaves),
        torch.autograd.grad((dense * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", DESIGNS)
def test_every_parameter_has_a_finite_gradient_at_the_start(name: str) -> None:
    model, tokens = model_of(DESIGNS[name]), tokens_of(9)
    logits = model(tokens, torch.arange(9).expand(3, 9))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens_of(9, seed=5).flatten())
    for (label, parameter), gradient in zip(
        model.named_parameters(), torch.autograd.grad(loss, list(model.parameters()), allow_unused=True), strict=True
    ):
        assert gradient is not None, label
        assert torch.isfinite(gradient).all(), label
        assert parameter.shape == gradient.shape


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 0}, "m.layers: 0 must be at least 1"),
        ({"d_model": 10, "heads": 3}, "m.heads: d_model 10 is not a multiple of 3 heads: set key_dim too"),
        ({"d_model": 10, "heads": 3, "key_dim": 2},
         "m.heads: d_model 10 is not a multiple of 3 heads: set value_dim too"),
        ({"key_dim": 0}, "m.key_dim: 0 must be at least 1"),
        ({"conv": 65}, "m.conv: 65 is not between 0 (none) and 64"),
        ({"feed_forward_ratio": 0}, "m.feed_forward_ratio: 0 must be positive"),
        ({"init_scale": -1}, "m.init_scale: -1 must be positive"),
        ({"feed_forward": "glu"}, "m.feed_forward: 'glu' is not one of none, swiglu (did you mean 'swiglu'?)"),
        ({"heds": 2}, "m.heds: unknown setting (did you mean 'heads'?)"),
    ],
)  # fmt: skip
def test_bad_configurations_are_named(settings: object, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(ModelConfig, settings, ("m",))
    assert str(caught.value) == message
