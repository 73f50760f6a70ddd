"""What each negative control does to a memory layer, in whole sequences, in streams and in many models at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from memories import case, evaluate, worst
from torch import Tensor

from miras_search.kernels import chunkwise, recurrence
from miras_search.models import fit
from miras_search.models.config import ModelConfig
from miras_search.models.language import LanguageModel
from miras_search.models.mixer import Mixer
from miras_search.space.control import CONTROL
from miras_search.space.control.random_keys import RandomKeys
from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError
from miras_search.space.rules import violations

CONTROLS = [name for name in CONTROL.options if name != "none"]
WIDTH, HEADS = 8, 2


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixer_of(design: Any, control: object = "none", *, seed: int = 3, **settings: Any) -> Mixer:
    point = DesignPoint.parse({**({"preset": design} if isinstance(design, str) else design), "control": control})
    mixer = Mixer(ModelConfig(d_model=WIDTH, heads=HEADS, **settings), point).double()
    mixer.initialise(torch.Generator().manual_seed(seed))
    with torch.no_grad():  # a matrix memory starts empty
        for i, weights in enumerate(mixer.start):
            weights.add_(0.3 * normal(*weights.shape, seed=40 + i))
    return mixer


def part(mixer: Mixer, name: str) -> Tensor:
    """The rows of the projection that make the queries, keys or values."""
    return torch.split(mixer.project.weight, [*mixer.widths, sum(mixer.split) - sum(mixer.widths)])["qkv".index(name)]


@pytest.mark.parametrize("retention", ["none", "l2"])
def test_ascent_of_the_dot_bias_is_taken_up_by_the_projections(retention: str) -> None:
    """Of values without an activation by their own projection, of all by the one behind the memory."""
    design, x = {"bias": "dot", "retention": retention}, normal(3, 11, WIDTH, seed=5)
    plain, by_values = (mixer_of(design, control, activation="none") for control in ("none", "ascent"))
    with torch.no_grad():
        part(by_values, "v").neg_()
    torch.testing.assert_close(by_values(x)[0], plain(x)[0], rtol=1e-10, atol=1e-12)
    plain, by_reads = mixer_of(design), mixer_of(design, "ascent")
    assert (by_reads(x)[0] - plain(x)[0]).abs().max() > 1e-3
    with torch.no_grad():
        by_reads.out.weight.neg_()
        for weights in by_reads.start:
            weights.neg_()
    torch.testing.assert_close(by_reads(x)[0], plain(x)[0], rtol=1e-10, atol=1e-12)


def test_ascent_of_a_residual_is_not_taken_up() -> None:
    plain, turned, x = mixer_of("delta_net"), mixer_of("delta_net", "ascent"), normal(3, 11, WIDTH, seed=5)
    with torch.no_grad():
        turned.out.weight.neg_()
        for weights in turned.start:
            weights.neg_()
    assert (turned(x)[0] - plain(x)[0]).abs().max() > 1e-3


def test_shuffled_values_are_those_of_the_sequence_before() -> None:
    mixer, x = mixer_of("delta_net", "shuffled_values", conv=0), normal(3, 11, WIDTH, seed=5)
    y, _ = mixer(x)
    x[0] += normal(11, WIDTH, seed=6)
    with torch.no_grad():
        assert (mixer(x)[0] - y).abs().amax((1, 2)).gt(1e-6).tolist() == [True, True, False]
        part(mixer, "v").zero_()
        empty = mixer(x)[0]
        mixer = mixer_of("delta_net", "shuffled_values", conv=0)
        for b in range(3):  # alone there is no other sequence, and its own values are not stored
            torch.testing.assert_close(mixer(x[b : b + 1])[0], empty[b : b + 1], rtol=1e-10, atol=1e-12)


def test_q_is_k_reads_as_if_queries_were_projected_like_keys() -> None:
    plain, tied, x = mixer_of("delta_net", conv=0), mixer_of("delta_net", "q_is_k", conv=0), normal(2, 7, WIDTH, seed=5)
    before = plain(x)[0]
    with torch.no_grad():
        part(plain, "q").copy_(part(plain, "k"))
    assert (before - plain(x)[0]).abs().max() > 1e-3
    torch.testing.assert_close(tied(x)[0], plain(x)[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("algorithm", "last"), [("erase_write", 1), ({"multi_step": {"writes": 3}}, 2)])
def test_q_is_k_reads_along_the_last_write(algorithm: object, last: int) -> None:
    point = DesignPoint.parse({"algorithm": algorithm, "control": "q_is_k"})
    inputs = case(point, 5, seed=1).inputs
    keys = inputs.k if inputs.w is None else inputs.w
    assert torch.equal(point.control.apply(inputs).q, keys.unflatten(1, (5, last + 1))[:, :, last])


def test_random_keys_know_positions_and_no_content() -> None:
    mixer, x = mixer_of("delta_net", "random_keys", conv=0), normal(2, 7, WIDTH, seed=5)
    y = mixer(x)[0]
    y.square().sum().backward()
    gradient = mixer.project.weight.grad
    assert gradient is not None
    q, k, v = torch.split(gradient, [*mixer.widths, len(gradient) - sum(mixer.widths)])[:3]
    assert not k.any() and q.any() and v.any()
    with torch.no_grad():
        part(mixer, "k").normal_()
    assert torch.equal(mixer(x)[0], y)


def test_the_table_of_random_keys_is_the_same_everywhere() -> None:
    """In a stream, in either precision, and in the next version: these are numbers, not a generator's."""
    table = RandomKeys().keys(torch.zeros(2, 600, 2, 8, dtype=torch.float64), 0)
    later = RandomKeys().keys(torch.zeros(1, 100, 2, 8), 500)
    torch.testing.assert_close(later.double(), table[:1, 500:], rtol=0, atol=1e-6)
    assert torch.equal(table[0], table[1])
    flat = table[0].flatten()
    assert flat.abs().max() <= 3**0.5
    assert abs(flat.mean()) < 0.02 and abs(flat.square().mean() - 1) < 0.02
    keys = torch.nn.functional.normalize(table[0, :, 0], dim=-1)
    products = (keys @ keys.T)[~torch.eye(600, dtype=torch.bool)]
    assert abs(products.mean()) < 0.01 and abs(products.square().mean() - 1 / 8) < 0.01
    torch.testing.assert_close(flat[:3], torch.tensor(PINNED, dtype=torch.float64), rtol=0, atol=1e-7)


PINNED = [0.8250171, -1.2629797, 1.397916]

STEPPED: dict[str, Any] = {
    "gd": {},
    "l1, decayed": {"bias": "l1", "retention": "l2", "execution": {"gradient_at": "decayed"}},
    "momentum": {"algorithm": "momentum", "retention": "l2"},
    "refined": {"retention": "l2", "execution": {"gradient": {"refined": 2}, "chunk": 4}},
    "own keys": {"algorithm": {"multi_step": {"writes": 2}}},
    "implicit": {"algorithm": "implicit"},
    "muon": {"algorithm": "muon", "memory": {"mlp": {"residual": False}}},
    "adam": {"algorithm": "adam"},
    "deep": {"memory": {"mlp": {"residual": False}}, "bias": {"huber": {"delta": "data"}}},
    "channels": {"retention": {"l2": {"keep": {"source": "data", "scope": "key"}}}, "step": {"scope": "value"}},
    "link": {"retention": "kl"},
    "link of a chunk": {
        "retention": "kl",
        "execution": {"gradient": {"refined": 1}, "chunk": 4, "link_refresh": "lag"},
    },
    "primal": {"retention": {"elastic_net": {"shrink": 0.02}}, "execution": {"gradient": "frozen", "chunk": 4}},
}


@pytest.mark.parametrize("name", STEPPED)
def test_inner_steps_are_as_many_writes_in_every_kernel(name: str) -> None:
    plain = DesignPoint.parse(STEPPED[name])
    point = plain.changed("control", {"inner_steps": {"n": 3}})
    assert not violations(point, 3, 5)
    assert point.writes == 3 * plain.writes
    given = case(plain, 9, seed=4)
    stepped = type(given)(point.control.apply(given.inputs), given.start, given.static)
    expected, gradients, _ = evaluate(recurrence.run, point, stepped)
    found, found_gradients, _ = evaluate(chunkwise.run, point, stepped)
    assert worst(found, expected) < 1e-10
    assert worst(found_gradients, gradients) < 1e-9
    once, _, _ = evaluate(recurrence.run, plain, given)
    assert worst(once[:1], expected[:1]) > 1e-3


def test_inner_steps_of_descent_are_those_of_multi_step_on_one_pair() -> None:
    fixed, x = {"retention": "l2", "step": 0.3}, normal(2, 7, WIDTH, seed=5)
    one = mixer_of({**fixed, "algorithm": {"multi_step": {"writes": 3, "own_keys": False}}})
    other = mixer_of(fixed, {"inner_steps": {"n": 3}})
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(other(x)[0], one(x)[0], rtol=1e-12, atol=1e-13)


def test_no_conv_is_the_model_without_its_convolution() -> None:
    plain, without = mixer_of("delta_net", conv=0), mixer_of("delta_net", "no_conv", conv=4)
    with_it, x = mixer_of("delta_net", conv=4), normal(2, 7, WIDTH, seed=5)
    sizes = [sum(p.numel() for p in mixer.parameters()) for mixer in (plain, without, with_it)]
    assert sizes[0] == sizes[1] == sizes[2] - 4 * sum(plain.widths)
    without.load_state_dict(plain.state_dict())
    assert torch.equal(without(x)[0], plain(x)[0])
    with pytest.raises(SpecError, match=r"^control: it sets model\.conv: 0, which the model has already"):
        fit.check(without.design, ModelConfig(conv=0))


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("design", ["gated_delta_net", "titans_lmm", "delta_product"])
def test_a_stream_is_the_whole(control: str, design: str) -> None:
    spec = {"preset": design, "execution": {"gradient": {"refined": 2}, "chunk": 4}}
    mixer, x = mixer_of(spec, control, rope=True), normal(3, 11, WIDTH, seed=5)
    whole, _ = mixer(x)
    parts, state = [], None
    for segment in x.split([3, 1, 6, 1], 1):
        y, state = mixer(segment, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-9, atol=1e-11)
    x[:, 7:] += 1
    torch.testing.assert_close(mixer(x)[0][:, :7], whole[:, :7], rtol=1e-12, atol=1e-13)
    assert not torch.allclose(mixer(x)[0][:, 7:], whole[:, 7:])


@pytest.mark.parametrize("control", CONTROLS)
def test_many_models_at_once_are_each_alone(control: str) -> None:
    design = DesignPoint.parse({"preset": "gated_delta_net", "control": control})
    models = [LanguageModel(ModelConfig(layers=1, d_model=WIDTH, heads=HEADS), design, 7) for _ in range(2)]
    for seed, model in enumerate(models):
        model.initialise(torch.Generator().manual_seed(seed))
        model.double()
    tokens = torch.randint(7, (2, 3, 9), generator=torch.Generator().manual_seed(9))
    positions = torch.tensor([[2, 8], [5, 7], [0, 1]])
    stacked, _ = torch.func.stack_module_state(models)

    def logits(parameters: dict[str, Tensor], tokens: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(models[0], parameters, (tokens, positions))
        return found

    found = torch.func.vmap(logits)(stacked, tokens)
    for i, model in enumerate(models):
        torch.testing.assert_close(found[i], model(tokens[i], positions), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("control", [name for name in CONTROLS if name != "no_conv"])
@pytest.mark.parametrize("design", ["gated_delta_net", "yaad", "mesa", "transformer"])
def test_a_control_keeps_parameters_and_their_draws(control: str, design: str) -> None:
    point = DesignPoint.parse({"preset": design, "control": control})
    config = ModelConfig(layers=2, d_model=WIDTH, heads=HEADS)
    if fit.violations(point, config):
        assert not point.descends or point.execution.gradient.sweeps == 0
        return
    models = []
    for one in (point, point.changed("control", "none")):
        models.append(LanguageModel(config, one, 7))
        models[-1].initialise(torch.Generator().manual_seed(1))
    for (name, a), (other, b) in zip(*(model.named_parameters() for model in models), strict=True):
        assert name == other and torch.equal(a, b)
