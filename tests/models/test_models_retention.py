"""Every retention gate in a language model: streams cut anywhere, steps of training, many models at once."""

from __future__ import annotations

import pytest
import torch
from stacked import stacked_equals_a_loop
from torch import Tensor
from torch.nn import functional

from miras_search.models.config import ModelConfig
from miras_search.models.language import LanguageModel
from miras_search.space.design import DesignPoint
from miras_search.space.retention import RETENTION

VOCAB, MODELS, TOKENS = 7, 2, 9
CONFIG = ModelConfig(layers=1, d_model=6, heads=2)
DEEP = {"memory": {"mlp": {"expansion": 2}}, "step": {"value": 0.1}}
FROZEN = {"execution": {"gradient": "frozen", "chunk": 4}}
DESIGNS: dict[str, dict[str, object]] = {
    "none": {"retention": "none"},
    "l2": {"retention": "l2"},
    "kl": {"retention": {"kl": {"learned_scale": True, "coupled": True}}},
    "reverse_kl": {"retention": "f_divergence"},
    "chi_squared": {"retention": {"f_divergence": {"divergence": "chi_squared", "slice": "row", "keep": "data"}}},
    "hellinger": {"retention": {"f_divergence": {"divergence": "hellinger", "scale": 2.0}}, **DEEP, **FROZEN},
    "elastic": {"retention": {"elastic_net": {"learned_shrink": True, "coupled": True}}, "algorithm": "momentum"},
    "elastic arctan": {"retention": {"elastic_net": {"threshold": "arctan", "keep": {"scope": "key"}}}, **FROZEN},
    "elastic ftrl": {"retention": {"elastic_net": {"view": "ftrl", "threshold": "smooth"}}, **DEEP},
    "lq": {"retention": {"lq": {"coupled": True}}, **DEEP},
    "lq literal": {"retention": {"lq": {"reading": "literal", "epsilon": 0.1}}, **DEEP, **FROZEN},
    "lq primal": {"retention": {"lq": {"reading": "primal_index", "q": 1.5, "over": "row"}}},
    "lq from zero": {"retention": {"lq": {"over": "memory"}}, "memory": {"matrix": {"start": "zero"}}},
    "logit": {"retention": "bregman"},
    "tanh": {"retention": {"bregman": {"potential": "tanh"}}, **DEEP, **FROZEN},
    "arcsinh": {"retention": {"bregman": {"potential": "arcsinh", "coupled": True}}},
    "entropy": {"retention": {"bregman": {"potential": "entropy"}}},
    "power": {"retention": {"bregman": {"potential": "power", "r": 1.5}}},
}


def model_of(name: str, seed: int = 1, dtype: torch.dtype = torch.float64, moved: float = 0.2) -> LanguageModel:
    """A model whose parameters are moved from their starting values, where some of them have no effect."""
    model = LanguageModel(CONFIG, DesignPoint.parse(DESIGNS[name]), VOCAB)
    model.initialise(torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 100)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(moved * torch.randn(parameter.shape, generator=generator))
    return model.to(dtype)


def tokens_of(length: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (2, length), generator=torch.Generator().manual_seed(seed))


def loss_of(model: LanguageModel, tokens: Tensor, labels: Tensor) -> Tensor:
    logits = model(tokens, torch.arange(tokens.shape[1]).expand(tokens.shape))
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def test_every_gate_is_run() -> None:
    assert {DesignPoint.parse(spec).retention.name for spec in DESIGNS.values()} == set(RETENTION.options)


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("tokens", [1, 12])
def test_training_starts_with_finite_gradients_in_float32(name: str, tokens: int) -> None:
    """From the starting values, where a matrix is empty and a link may be steep, and two steps later."""
    model = model_of(name, dtype=torch.float32, moved=0.0)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    for step in range(3):
        loss = loss_of(model, tokens_of(tokens, step), tokens_of(tokens, step + 10))
        optimiser.zero_grad()
        loss.backward()
        assert torch.isfinite(loss)
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
        optimiser.step()


@pytest.mark.parametrize("name", DESIGNS)
def test_every_parameter_of_the_gate_matters(name: str) -> None:
    """The start, the static parameters and the keep gate get a gradient, once away from their starting values."""
    model = model_of(name)
    loss_of(model, tokens_of(12), tokens_of(12, 5)).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        if any(part in key for part in ("start", "static", "gates")):
            assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", DESIGNS)
def test_streams_cut_anywhere(name: str) -> None:
    model, tokens = model_of(name), tokens_of(TOKENS)
    whole, _ = model.stream(tokens)
    for cuts in ([4], [1, 3, 8], list(range(1, TOKENS))):
        state, pieces = None, []
        for first, last in zip([0, *cuts], [*cuts, TOKENS], strict=True):
            piece, state = model.stream(tokens[:, first:last], state)
            pieces.append(piece)
        torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", DESIGNS)
def test_many_models_at_once(name: str) -> None:
    models = [model_of(name, seed) for seed in range(1, MODELS + 1)]
    tokens, labels = (tokens_of(TOKENS, seed).expand(MODELS, 2, TOKENS) for seed in (0, 5))
    positions = torch.arange(TOKENS).expand(tokens.shape)
    stacked_equals_a_loop(models, tokens, positions, labels, of_loss=(1e-9, 1e-10), of_gradient=(1e-7, 1e-9))
