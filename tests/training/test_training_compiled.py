"""Compiled steps: the recorded graph is the model's, the compiled one finds what operators find, and what cannot be
compiled runs all the same."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator

import pytest
import torch
from compiling import NEEDS_COMPILER, as_recorded
from memories import case, evaluate, points, worst
from torch import Tensor

from miras_search.errors import EnvironmentProblem
from miras_search.kernels import chunkwise, recurrence
from miras_search.kernels.recording import recording
from miras_search.models.config import ModelConfig
from miras_search.space.control import CONTROL
from miras_search.space.design import DesignPoint
from miras_search.training import compiled as graphs
from miras_search.training.compiled import NAME, compiled, traced
from miras_search.training.config import TrainConfig
from miras_search.training.descent import CompiledDescent, descent_of, loss_of
from miras_search.training.evaluate import Labelled
from miras_search.training.first_steps import KernelMismatch
from miras_search.training.job import Job, Outcome
from miras_search.training.optimiser import total_norm
from miras_search.training.pack import train_pack
from miras_search.training.run import train
from miras_search.training.start import new_model

CHUNKS = {"execution": {"chunk": 4}}
DESIGNS: dict[str, object] = {
    "the triangular solve": {"preset": "gated_delta_net", **CHUNKS},
    "two writes": {"preset": "delta_product", **CHUNKS},
    "sweeps": {"bias": {"lp": {"p": 1.5}}, "execution": {"chunk": 4, "gradient": {"refined": 2}}},
    "a hidden layer": {"preset": "titans_lmm", "execution": {"chunk": 4, "gradient": "frozen"}},
    "a hidden layer, huber": {"preset": "yaad", "execution": {"chunk": 4, "gradient": "frozen"}},
    "channels": {"preset": "kda", **CHUNKS},
    "token by token": {"preset": "moneta", **CHUNKS},
    "a solution": {"preset": "mesa", **CHUNKS},
    "attention": {"preset": "transformer"},
}
MODELS: dict[str, dict[str, object]] = {
    "plain": {},
    "tied": {"tie_embeddings": True, "rope": True, "conv": 0},
    "mapped": {"feature_map": "elu1", "feed_forward": "swiglu", "value_dim": 3},
    "summed": {"normaliser": "sum", "feature_map": "elu1", "qk_norm": "none", "attention_every": 2, "layers": 2},
}


def job(design: object = "delta_net", seed: int = 3, model: dict[str, object] | None = None, **train: object) -> Job:
    task = {"name": "mqar", "vocab": 16, "length": 14, "pairs": 2}
    config = TrainConfig.from_plain({"steps": 4, "batch": 3, "eval_examples": 4, **train})
    sizes = ModelConfig(layers=1, d_model=8, heads=2)
    return Job(DesignPoint.parse(design), dataclasses.replace(sizes, **(model or {})), task, config, seed)


def batch_of(one: Job) -> Labelled:
    from miras_search.tasks import task_from_spec

    return Labelled.of(task_from_spec(one.task).train_batch(one.seed, 0, one.train.batch), torch.device("cpu"))


def step_of(one: Job) -> tuple[list[Tensor], list[Tensor]]:
    """Loss and gradients by operators, and by the recorded graph."""
    model, batch = new_model(one), batch_of(one)
    loss = loss_of(model, batch, one.train.precision)
    loss.backward()
    expected = [loss.detach(), *(torch.zeros(()) if p.grad is None else p.grad for p in model.parameters())]
    descent = CompiledDescent(one, model)
    inputs = (batch.tokens, batch.positions, batch.targets, *descent._held)
    found = traced(descent._function, *inputs)(*inputs)
    loss, norm, *gradients = (torch.zeros(()) if x is None else x for x in found)
    torch.testing.assert_close(norm, total_norm(gradients))
    return expected, [loss, *gradients]


def off(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference as a share of all gradients' RMS."""
    size = torch.cat([x.flatten() for x in expected[1:]]).square().mean().sqrt()
    return max(float((a - b).abs().max() / size) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", DESIGNS)
def test_a_recorded_step_is_the_models(name: str) -> None:
    expected, found = step_of(job(DESIGNS[name]))
    assert off(found, expected) < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_a_recorded_step_of_other_layers_is_the_models(name: str) -> None:
    expected, found = step_of(job("linear_attention" if name == "summed" else "delta_net", model=MODELS[name]))
    assert off(found, expected) < 1e-4


@pytest.mark.parametrize("tokens", [1, 4, 11])
@pytest.mark.parametrize("name", ["the triangular solve", "two writes", "a hidden layer", "a hidden layer, huber"])
def test_what_is_recorded_in_its_own_way_is_the_recurrences(name: str, tokens: int) -> None:
    point = DesignPoint.parse(DESIGNS[name])
    given = case(point, tokens, seed=29)
    outputs, gradients, expected = evaluate(recurrence.run, point, given)
    with recording():
        found, found_gradients, state = evaluate(chunkwise.run, point, given)
    assert list(state.tensors()) == list(expected.tensors())
    assert worst(found, outputs) < 1e-9
    assert worst(found_gradients, gradients) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("point", list(points(60, seed=11)), ids=str)
def test_any_point_recorded_in_its_own_way_is_the_recurrences(point: DesignPoint) -> None:
    given = case(point, 11, seed=31)
    outputs, gradients, _ = evaluate(recurrence.run, point, given)
    with recording():
        found, found_gradients, _ = evaluate(chunkwise.run, point, given)
    assert worst(found, outputs) < 1e-9
    assert worst(found_gradients, gradients) < 1e-9


def numbers(outcome: Outcome) -> dict[str, float]:
    return {f"{one.name} {one.split}": one.value for one in outcome.finals if one.name in ("loss", "accuracy")}


def share(outcome: Outcome) -> float:
    (found,) = (one.value for one in outcome.finals if one.name == "kernel_mismatch")
    return found


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    graphs._graphs.clear()
    yield
    graphs._graphs.clear()


@NEEDS_COMPILER
def test_a_compiled_training_finds_what_operators_find_and_its_graph_serves_the_next() -> None:
    for seed, lr in ((1, 1e-3), (2, 3e-3)):
        one = job(seed=seed, lr=lr)
        found, expected = (train(one, device="cpu", threads=1, kernels=kind) for kind in ("compiled", "auto"))
        assert found.state == "complete"
        assert numbers(found) == pytest.approx(numbers(expected), rel=1e-4)
        assert 0 <= share(found) < 1e-4
    assert len(graphs._graphs) == 1


@NEEDS_COMPILER
def test_a_compiled_training_repeats_to_the_bit() -> None:
    first, again = (train(job(), device="cpu", threads=1, kernels="compiled") for _ in range(2))
    assert numbers(first) == numbers(again)
    assert share(first) == share(again)


@NEEDS_COMPILER
@pytest.mark.slow
def test_a_compiled_pack_finds_what_it_finds_as_operators() -> None:
    jobs = [job(seed=1), job(seed=2, lr=3e-3)]
    packs = [train_pack(jobs, device="cpu", threads=1, kernels=kind) for kind in ("compiled", "auto")]
    for found, expected in zip(*packs, strict=True):
        assert numbers(found) == pytest.approx(numbers(expected), rel=1e-4)
        assert 0 <= share(found) < 1e-4


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_made", as_recorded)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", ["the triangular solve", "a hidden layer", "a hidden layer, huber"])
def test_recorded_trainings_and_packs_are_those_of_operators(name: str) -> None:
    jobs = [job(DESIGNS[name], seed, lr=lr) for seed, lr in ((1, 1e-3), (2, 3e-3), (3, 1e-3))]
    packed, expected = (train_pack(jobs, device="cpu", kernels=kind) for kind in ("compiled", "auto"))
    alone = [train(each, device="cpu", kernels="compiled") for each in jobs]
    assert len(graphs._graphs) == 2
    for found, other, solo in zip(packed, expected, alone, strict=True):
        assert numbers(found) == pytest.approx(numbers(other), rel=1e-3)
        assert numbers(solo) == pytest.approx(numbers(other), rel=1e-3)
        assert max(share(found), share(solo)) < 1e-3


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("control", sorted(CONTROL.options))
def test_a_graph_of_a_control_serves_every_seed_with_its_own_inner_step(control: str) -> None:
    base = DesignPoint.parse("delta_net")
    for seed in (1, 2):
        plain = job({"preset": "gated_delta_net", "control": control}, seed)
        matched = dataclasses.replace(plain.train, inner_step="match_base")
        one = dataclasses.replace(plain, train=matched, base_design=base)
        found, expected = (train(one, device="cpu", kernels=kind) for kind in ("compiled", "auto"))
        assert numbers(found) == pytest.approx(numbers(expected), rel=1e-4)
        assert share(found) < 1e-3
    assert len(graphs._graphs) == 1


def test_a_recorded_step_in_bfloat16_is_the_models() -> None:
    expected, found = step_of(job(precision="bfloat16"))
    assert off(found, expected) < 0.1


@pytest.mark.usefixtures("uncompiled")
def test_a_wrong_graph_ends_a_training_with_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(function: graphs.Descent, example: tuple[Tensor, ...]) -> graphs.Descent:
        right = as_recorded(function, example)
        return lambda *inputs: (*right(*inputs)[:2], *(x * 1.01 for x in right(*inputs)[2:] if x is not None))

    monkeypatch.setattr(graphs, "_made", wrong)
    with pytest.raises(KernelMismatch, match=f"'{NAME}' was taken for .*: set resources.kernels: torch$"):
        train(job(), device="cpu", kernels="compiled")


@pytest.mark.usefixtures("uncompiled")
def test_gradients_that_share_memory_are_set_apart() -> None:
    """Two parameters that are added have one gradient, and an optimiser scales each in place."""
    one = job()
    model = new_model(one)
    descent = CompiledDescent(one, model)
    same = torch.ones(max(p.numel() for p in model.parameters()))
    views = [same[: p.numel()].view_as(p) for p in model.parameters()]
    descent._found = lambda *inputs: (torch.zeros(()), torch.ones(()), *views)
    descent(batch_of(one))
    found = [p.grad for p in model.parameters() if p.grad is not None]
    assert len({x.data_ptr() for x in found}) == len(found) == len(views)
    assert all((x == 1).all() for x in found)


def test_it_is_the_study_that_asks_for_it() -> None:
    one = job()
    kinds = [
        isinstance(descent_of(one, new_model(one), kind), CompiledDescent) for kind in ("auto", "torch", "compiled")
    ]
    assert kinds == [False, False, True]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    with caplog.at_level(logging.WARNING, logger=graphs.__name__):
        yield lambda: [record.getMessage() for record in caplog.records if record.name == graphs.__name__]


@NEEDS_COMPILER
def test_what_looks_at_values_runs_operator_by_operator(told: Callable[[], list[str]]) -> None:
    def looks(x: Tensor) -> tuple[Tensor | None, ...]:
        return (x * 2 if float(x.sum()) > 0 else x,)

    run = compiled("looks", looks)
    for _ in range(2):
        (found,) = run(torch.ones(3))
        assert found is not None
        assert found.tolist() == [2, 2, 2]
    (line,) = told()
    assert line.startswith("not compiled (")


@NEEDS_COMPILER
def test_what_takes_the_compiler_too_long_runs_operator_by_operator(
    told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "MOST", 5)
    outcome = train(job(), device="cpu", kernels="compiled")
    assert numbers(outcome) == numbers(train(job(), device="cpu"))
    assert not [one for one in outcome.finals if one.name == "kernel_mismatch"]
    assert told() == [
        "not compiled (more than 5 operators would take the compiler too long): the operators run one by one"
    ]


def test_no_compiler_and_no_cpu_are_told(told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    run = compiled("twice", lambda x: (2 * x,))
    with pytest.raises(EnvironmentProblem, match=r"compiled is code for a CPU, not for meta: take auto$"):
        run(torch.ones(3, device="meta"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(EnvironmentProblem, match=r"no C\+\+ compiler 'no-such-compiler' on the PATH: .*auto$"):
        run(torch.ones(3))
    assert told() == []
