"""Language models whose memories are solved for: streams, training steps, stacked parameters, budgets."""

from __future__ import annotations

import pytest
import torch
from stacked import stacked_equals_a_loop
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree

from miras_search.models import budget
from miras_search.models.config import ModelConfig
from miras_search.models.language import LanguageModel
from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError

VOCAB = 11
SMALL = ModelConfig(layers=2, d_model=8, heads=2)
PAIRS = {"algorithm": "nonparametric"}
DESIGNS: dict[str, dict[str, object]] = {
    "mesa": {"algorithm": "newton", "retention": "l2"},
    "mesa, conjugate gradients": {"algorithm": {"newton": {"iterations": 6}}},
    "attention": {"memory": "attention", **PAIRS, "step": 1.0},
    "attention, gated": {"memory": "attention", **PAIRS, "retention": "l2"},
    "attention, window": {"memory": {"attention": {"window": 4}}, **PAIRS},
    "vector": {"memory": "vector", "retention": {"l2": {"keep": {"scope": "value"}}}},
    "ttt_linear": {
        "memory": {"matrix": {"residual": True, "norm": "layer", "affine": True}},
        "execution": {"gradient": "frozen", "chunk": 4},
    },
    "matrix from zero": {"memory": {"matrix": {"start": "zero"}}, "algorithm": "momentum"},
}
SOLVED = [name for name in DESIGNS if "mesa" in name or "attention" in name]


def model_of(
    design: object, config: ModelConfig = SMALL, *, seed: int = 1, dtype: torch.dtype = torch.float64
) -> LanguageModel:
    model = LanguageModel(config, DesignPoint.parse(design), VOCAB)
    model.initialise(torch.Generator().manual_seed(seed))
    return model.to(dtype)


def tokens_of(length: int, batch: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("rope", [False, True])
def test_a_stream_may_be_cut_anywhere(name: str, rope: bool) -> None:
    model, tokens = model_of(DESIGNS[name], ModelConfig(layers=2, d_model=8, heads=2, rope=rope)), tokens_of(13)
    with torch.no_grad():
        whole, final = model.stream(tokens)
        for cuts in ([1], [6, 7, 12], list(range(1, 13))):
            states, pieces = None, []
            for begin, end in zip([0, *cuts], [*cuts, 13], strict=True):
                hidden, states = model.stream(tokens[:, begin:end], states)
                pieces.append(hidden)
            torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-9, atol=1e-9)
            for a, b in zip(pytree.tree_leaves(states), pytree.tree_leaves(final), strict=True):
                if isinstance(a, Tensor):
                    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
                else:
                    assert a == b


@pytest.mark.parametrize("control", ["none", "no_write"])
@pytest.mark.parametrize("name", DESIGNS)
def test_a_training_step_lowers_the_loss(name: str, control: str) -> None:
    model = model_of({**DESIGNS[name], "control": control}, dtype=torch.float32)
    tokens, positions, labels = tokens_of(12), torch.arange(12).expand(3, 12), tokens_of(12, seed=5)
    losses = []
    for _ in range(2):
        loss = functional.cross_entropy(model(tokens, positions).flatten(0, 1), labels.flatten())
        losses.append(loss.item())
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for label, parameter in model.named_parameters():
                gradient = parameter.grad
                assert gradient is not None or control == "no_write", label  # what a control takes out of use has none
                if gradient is not None:
                    assert torch.isfinite(gradient).all(), label
                    parameter.sub_(0.02 * gradient)
    assert losses[1] < losses[0]


@pytest.mark.parametrize("name", SOLVED)
def test_every_parameter_is_trained(name: str) -> None:
    """At the start, but for an output norm of a single direction all gradients differ from zero."""
    model, tokens = model_of(DESIGNS[name]), tokens_of(12)
    loss = functional.cross_entropy(
        model(tokens, torch.arange(12).expand(3, 12)).flatten(0, 1), tokens_of(12, seed=5).flatten()
    )
    for (label, _), gradient in zip(
        model.named_parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
    ):
        assert torch.isfinite(gradient).all(), label
        assert gradient.abs().max() > 0, label


@pytest.mark.parametrize("name", DESIGNS)
def test_stacked_gradients_equal_a_loop(name: str) -> None:
    models = [model_of(DESIGNS[name], ModelConfig(layers=1, d_model=6, heads=2), seed=seed) for seed in range(3)]
    tokens, labels = tokens_of(9).view(3, 1, 9), tokens_of(9, seed=5).view(3, 1, 9)
    positions = torch.arange(9).expand(3, 1, 9)

    stacked_equals_a_loop(models, tokens, positions, labels)


def test_state_bytes_by_hand() -> None:
    config = ModelConfig(layers=3, d_model=12, heads=2, key_dim=4, value_dim=5, conv=0)
    mesa = model_of(DESIGNS["mesa"], config, dtype=torch.float32)
    assert budget.state_bytes(mesa, 1) == budget.state_bytes(mesa, 7) == 4 * 3 * 2 * (4 * 4 + 4 * 5)
    pair = 4 * 3 * 2 * (4 + 5 + 1)  # key, value, weight
    growing = model_of(DESIGNS["attention"], config, dtype=torch.float32)
    assert [budget.state_bytes(growing, n) for n in (1, 3, 7)] == [pair, 3 * pair, 7 * pair]
    windowed = model_of(DESIGNS["attention, window"], config, dtype=torch.float32)
    assert [budget.state_bytes(windowed, n) for n in (1, 3, 7)] == [pair, 3 * pair, 4 * pair]


def test_work_is_counted() -> None:
    """Solving costs more than adding up, and attention more with every token."""
    plain = budget.flops_per_token(model_of({"bias": "dot"}), 16)
    for name in ("mesa", "mesa, conjugate gradients"):
        assert budget.flops_per_token(model_of(DESIGNS[name]), 16) > plain
    short, long = (budget.flops_per_token(model_of(DESIGNS["attention"]), tokens) for tokens in (16, 32))
    assert long - short == 2 * 2 * 2 * 16 * (4 + 4)  # layers, heads, products and sums, 16 more pairs, K + V


def test_parameters_of_their_own() -> None:
    names = {name for name, _ in model_of(DESIGNS["mesa"]).blocks[0].named_parameters()}
    assert "mixer.static.ridge" in names
    assert not any("start" in name for name in names)
    attention = model_of(DESIGNS["attention"])
    shapes = {name: tuple(x.shape) for name, x in attention.blocks[0].named_parameters() if "static" in name}
    assert shapes == {"mixer.static.log_scale": (2,)}
    names = {name for name, _ in model_of(DESIGNS["matrix from zero"]).blocks[0].named_parameters()}
    assert not any("start" in name for name in names)


def test_a_memory_of_pairs_refuses_to_descend_with_the_reason() -> None:
    with pytest.raises(SpecError, match=r"^memory: .*read by the nonparametric algorithm, and only it"):
        model_of({"memory": "attention"})
    with pytest.raises(SpecError, match=r"^control: the step is the weight of a pair"):
        model_of({"algorithm": "newton", "control": "ascent"})
