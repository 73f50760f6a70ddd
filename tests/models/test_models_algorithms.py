"""Every algorithm in a language model: streams cut anywhere, a step of training, many models at once."""

from __future__ import annotations

import pytest
import torch
from stacked import stacked_equals_a_loop
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree

from miras_search.kernels import dispatch
from miras_search.models.config import ModelConfig
from miras_search.models.language import LanguageModel
from miras_search.space.algorithm import ALGORITHM
from miras_search.space.design import DesignPoint

VOCAB, MODELS, TOKENS = 7, 2, 9
CONFIG = ModelConfig(layers=1, d_model=6, heads=2)
DEEP = {"memory": {"mlp": {"expansion": 2}}, "step": {"value": 0.1}}
DESIGNS: dict[str, dict[str, object]] = {
    "gd": {"algorithm": "gd"},
    "momentum": {"algorithm": "momentum"},
    "multi_step": {"algorithm": "multi_step", "retention": {"l2": {"coupled": True}}},
    "implicit": {"algorithm": "implicit", "retention": "l2", "execution": {"gradient_at": "decayed"}},
    "erase_write": {
        "algorithm": "erase_write",
        "retention": {"l2": {"keep": {"scope": "key", "squash": "rwkv", "value": 0.9}}},
    },
    "erase_write one key": {"algorithm": {"erase_write": {"own_keys": False, "erase": {"scope": "head"}}}},
    "omega": {"algorithm": {"omega": {"window": 3}}, "retention": "l2"},
    "omega momentum": {"algorithm": {"omega": {"window": 2, "momentum": "data"}}, **DEEP},
    "omega one pair": {"algorithm": {"omega": {"window": 1}}},
    "omega huber": {
        "algorithm": {"omega": {"window": 3, "share": 1.0}},
        "bias": {"huber": {"delta": {"source": "data", "squash": "softplus", "value": 1.0}}},
        "execution": {"gradient": {"refined": 1}, "chunk": 4},
    },
    "muon": {"algorithm": "muon", "retention": "l2"},
    "atlas": {
        "algorithm": {"muon": {"window": 3, "share": "data"}},
        "retention": "l2",
        "execution": {"gradient": "frozen", "chunk": 4},
        **DEEP,
    },
    "muon one pair": {"algorithm": {"muon": {"share": "data"}}},
    "adam": {"algorithm": "adam", "retention": "l2", **DEEP},
    "adam plain": {"algorithm": {"adam": {"correction": False}}, "execution": {"gradient": "frozen", "chunk": 4}},
}


def model_of(name: str, seed: int = 1, dtype: torch.dtype = torch.float64) -> LanguageModel:
    """A model whose gates and memory are not at their starting values, where some of them have no effect."""
    model = LanguageModel(CONFIG, DesignPoint.parse(DESIGNS[name]), VOCAB)
    model.initialise(torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 100)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.to(dtype)


def tokens_of(length: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (2, length), generator=torch.Generator().manual_seed(seed))


def loss_of(model: LanguageModel, tokens: Tensor, labels: Tensor) -> Tensor:
    logits = model(tokens, torch.arange(tokens.shape[1]).expand(tokens.shape))
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def test_every_descending_algorithm_is_here() -> None:
    plain = DesignPoint()
    known = [cls() for cls in ALGORITHM.options.values()]
    descending = {
        one.name
        for one in known
        if one.solution(plain.memory) is None and one.problem(plain.memory, plain.bias) is None
    }
    assert {DesignPoint.parse(spec).algorithm.name for spec in DESIGNS.values()} == descending


@pytest.mark.parametrize("name", DESIGNS)
def test_a_stream_may_be_cut_anywhere(name: str) -> None:
    model, tokens = model_of(name), tokens_of(TOKENS)
    with torch.no_grad():
        whole, final = model.stream(tokens)
        for cuts in ([4, 5], list(range(1, TOKENS))):
            states, pieces = None, []
            for begin, end in zip([0, *cuts], [*cuts, TOKENS], strict=True):
                hidden, states = model.stream(tokens[:, begin:end], states)
                pieces.append(hidden)
            torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-9, atol=1e-9)
            for a, b in zip(pytree.tree_leaves(states), pytree.tree_leaves(final), strict=True):
                if isinstance(a, Tensor):
                    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
                else:
                    assert a == b


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", DESIGNS)
def test_a_step_against_the_gradient_lowers_the_loss_by_as_much_as_it_says(name: str, dtype: torch.dtype) -> None:
    """A short one: Muon's loss is rough on longer scales. In float32 every parameter has a finite gradient."""
    model = model_of(name, dtype=dtype)
    tokens, labels = tokens_of(TOKENS), tokens_of(TOKENS, seed=5)
    loss = loss_of(model, tokens, labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    for (label, _), gradient in zip(model.named_parameters(), gradients, strict=True):
        assert torch.isfinite(gradient).all(), label
        assert gradient.any(), label
    if dtype == torch.float32:
        return
    length = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter -= 1e-7 * gradient / length
    assert ((loss - loss_of(model, tokens, labels)) / (1e-7 * length)).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", DESIGNS)
def test_stacked_gradients_equal_a_loop(name: str) -> None:
    models = [model_of(name, seed) for seed in range(MODELS)]
    tokens = torch.stack([tokens_of(TOKENS, seed=10 + i) for i in range(MODELS)])
    labels = torch.stack([tokens_of(TOKENS, seed=20 + i) for i in range(MODELS)])
    positions = torch.arange(TOKENS).expand(tokens.shape)
    stacked_equals_a_loop(models, tokens, positions, labels, of_gradient=(1e-8, 1e-11))


@pytest.mark.parametrize("name", DESIGNS)
def test_one_token_is_enough(name: str) -> None:
    hidden, _ = model_of(name, dtype=torch.float32).stream(tokens_of(1))
    assert torch.isfinite(hidden).all()


@pytest.mark.parametrize(("name", "found"), [("omega", "chunkwise"), ("muon", "chunkwise")])
def test_a_gpu_kernel_is_not_given_what_it_does_not_know(name: str, found: str) -> None:
    point = DesignPoint.parse(DESIGNS[name])
    choice = dispatch.choose(point, dispatch.Setting("cuda", torch.float32, 16, 16))
    assert choice.name == found


def test_a_share_alone_in_its_window_scales_the_step() -> None:
    """It is folded into the step, so that kernels which know no shares run it."""
    mixer = model_of("omega one pair").blocks[0].mixer
    gates = mixer.gates(torch.randn(2, 4, mixer.gates.width, dtype=torch.float64))
    inputs = mixer._inputs(torch.randn(2, 4, sum(mixer.widths), dtype=torch.float64), gates)
    assert inputs.share is None
    torch.testing.assert_close(inputs.step, gates["step"].squeeze(2) * gates["share"])
