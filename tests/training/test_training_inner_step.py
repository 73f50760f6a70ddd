"""The scale of the inner step: its definition, what it matches, what it leaves alone, and where it is kept."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from miras_search.errors import MirasError
from miras_search.models import inner_step
from miras_search.models.config import ModelConfig
from miras_search.models.language import LanguageModel
from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError
from miras_search.tasks import task_from_spec
from miras_search.training.checkpoint import load_checkpoint
from miras_search.training.config import Seeds, TrainConfig
from miras_search.training.job import Job
from miras_search.training.run import train
from miras_search.training.start import new_model

FAST = {"execution": {"gradient": "frozen", "chunk": 8}}
TASK = {"name": "mqar", "vocab": 16, "length": 16, "pairs": 2}


def job(design: object, base: object = "delta_net", inner_step: str = "match_base", layers: int = 2) -> Job:
    config = TrainConfig.from_plain({"steps": 3, "batch": 4, "eval_examples": 4, "inner_step": inner_step})
    model = ModelConfig(layers=layers, d_model=16, heads=2)
    return Job(DesignPoint.parse(design), model, TASK, config, 1, DesignPoint.parse(base))


def first_batch(of: Job) -> Tensor:
    return torch.from_numpy(task_from_spec(of.task).train_batch(Seeds.of(of.seed).data, 0, of.train.batch).tokens)


def base_of(of: Job) -> Job:
    return dataclasses.replace(
        of, design=of.base_design, train=dataclasses.replace(of.train, inner_step="as_is"), base_design=None
    )


DESIGNS: dict[str, object] = {
    "dot": "linear_attention",
    "full l2": {"bias": {"l2": {"scale": "full"}}, **FAST},
    "lp": {"bias": {"lp": {"p": 3}}, **FAST},
    "huber by data": {
        "bias": {"huber": {"delta": {"source": "data", "squash": "softplus", "value": 0.1}}},
        "algorithm": {"multi_step": {"writes": 2}},
        **FAST,
    },
    "deep": {"memory": "mlp", "algorithm": "momentum", **FAST},
    "dual": {"retention": "kl", **FAST},
}


@pytest.mark.parametrize("name", DESIGNS)
def test_first_writes_are_as_large_as_the_bases(name: str) -> None:
    matched = job(DESIGNS[name])
    tokens, base = first_batch(matched), new_model(base_of(matched))
    wanted = inner_step.write_size(base, tokens)
    assert inner_step.write_size(new_model(matched), tokens) == pytest.approx(wanted, rel=1e-4)
    as_is = inner_step.write_size(new_model(job(DESIGNS[name], inner_step="as_is")), tokens)
    assert as_is != pytest.approx(wanted, rel=1e-2)


def test_a_signal_of_twice_the_length_takes_half_the_step() -> None:
    for layers in (1, 2):
        scale = new_model(job({"bias": {"l2": {"scale": "full"}}}, "delta_net", layers=layers)).step_scale
        assert scale == pytest.approx(0.5, rel=1e-5)


def test_write_size_is_the_root_mean_square_of_its_definition() -> None:
    """By a loop over writes, from the inputs themselves: an empty matrix predicts 0, so that u = -2 v."""
    design = DesignPoint.parse({"bias": {"l2": {"scale": "full"}}, "algorithm": {"multi_step": {"writes": 2}}})
    model = LanguageModel(ModelConfig(layers=2, d_model=16, heads=2), design, 16)
    model.initialise(torch.Generator().manual_seed(4))
    tokens = torch.randint(16, (3, 5), generator=torch.Generator().manual_seed(1))
    seen: list[float] = []

    def see(inputs, start, static) -> None:
        for b in range(3):
            for n in range(10):
                for h in range(2):
                    seen.extend((inputs.step[b, n, h] * -2 * inputs.v[b, n, h]).tolist())

    with torch.no_grad(), model.observed(see):
        model.stream(tokens)
    assert len(seen) == 2 * 3 * 10 * 2 * 8
    expected = math.sqrt(math.fsum(x * x for x in seen) / len(seen))
    assert inner_step.write_size(model, tokens) == pytest.approx(expected, rel=1e-5)
    count = len(seen)
    model.stream(tokens)
    assert len(seen) == count  # nobody listens any more


@pytest.mark.parametrize("control", ["no_write", "ascent"])
def test_a_control_of_the_base_is_scaled_like_the_base(control: str) -> None:
    assert new_model(job({"preset": "delta_net", "control": control})).step_scale == 1.0


def test_a_control_is_scaled_like_its_design() -> None:
    plain = new_model(job("linear_attention")).step_scale
    assert plain != 1.0
    assert new_model(job({"preset": "linear_attention", "control": "no_write"})).step_scale == plain


def test_the_unit_of_the_signal_is_matched_and_not_what_later_writes_do() -> None:
    """A decay, and momentum, with the base's bias and step: nothing to scale in the first layer."""
    for design in ({"retention": {"l2": {"keep": 0.9}}}, {"algorithm": {"momentum": {"momentum": 0.5}}}):
        scale = new_model(job({**design, **FAST}, {**FAST}, layers=1)).step_scale
        assert scale == pytest.approx(1.0, abs=1e-5)


def test_a_base_that_writes_nothing_leaves_the_step_as_it_is() -> None:
    model, base = new_model(base_of(job("linear_attention"))), new_model(base_of(job("linear_attention")))
    base.scale_steps(0.0)
    assert inner_step.match(model, base, first_batch(job("delta_net"))) == model.step_scale == 1.0


def test_rounds_that_do_not_settle_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner_step, "ROUNDS", 1)
    with pytest.raises(MirasError, match=r"match_base finds no scale .* after 1 rounds .* use as_is"):
        new_model(job({"bias": {"l2": {"scale": "full"}}}))


def test_the_scale_is_on_the_step_and_on_nothing_else() -> None:
    model = new_model(base_of(job("gated_delta_net", "gated_delta_net")))
    seen = []
    for scale in (1.0, 3.0, 1.0):
        model.scale_steps(scale)
        assert model.step_scale == scale
        with model.observed(lambda inputs, start, static: seen.append(inputs)):
            model.stream(torch.arange(6).view(1, 6))
    first = seen[::2]  # of the first layer
    assert torch.equal(first[1].step, 3 * first[0].step) and torch.equal(first[2].step, first[0].step)
    for slot in ("q", "k", "v", "log_keep"):
        assert torch.equal(getattr(first[1], slot), getattr(first[0], slot))


def test_stacked_models_keep_their_own_scales() -> None:
    """Seeds of a cell in one process: each has a scale of its own, among the buffers."""
    models = [new_model(dataclasses.replace(job("linear_attention"), seed=seed)) for seed in range(3)]
    assert len({model.step_scale for model in models}) == 3
    tokens, positions = first_batch(job("linear_attention")), torch.tensor([[3, 15]]).expand(4, 2)

    def run(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(models[0], (parameters, buffers), (tokens, positions))

    together = torch.func.vmap(run)(*torch.func.stack_module_state(models))
    for found, model in zip(together, models, strict=True):
        torch.testing.assert_close(found, model(tokens, positions))


def test_the_scale_is_recorded_trained_with_and_kept(tmp_path: Path) -> None:
    matched, path = job({"bias": {"l2": {"scale": "full"}}, **FAST}, FAST), tmp_path / "m.safetensors"
    outcome = train(matched, device="cpu", checkpoint=path)
    values = {(f.name, f.split): f.value for f in outcome.finals}
    assert values["inner_step_scale", ""] == pytest.approx(0.5, rel=1e-5)
    loaded, model = load_checkpoint(path)
    assert loaded == matched
    assert model.step_scale == values["inner_step_scale", ""]

    # the full l2 at half the step is the half l2 from its first step to its last
    half = train(base_of(job({}, FAST)), device="cpu")
    assert ("inner_step_scale", "") not in {(f.name, f.split) for f in half.finals}
    for final in half.finals:
        if final.name in ("loss", "accuracy"):
            assert values[final.name, final.split] == pytest.approx(final.value, rel=1e-3)


def test_a_matched_job_without_a_base_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^train.inner_step: match_base needs the design to be matched: give the job"):
        dataclasses.replace(job("delta_net"), base_design=None)
    plain = job("delta_net").to_plain()
    assert Job.from_plain(plain) == job("delta_net")
    del plain["base_design"]
    with pytest.raises(SpecError, match=r"train.inner_step: match_base needs"):
        Job.from_plain(plain)
    with pytest.raises(SpecError, match=r"base_desing: unknown part of a job \(did you mean 'base_design'\?\)"):
        Job.from_plain({**plain, "base_desing": "yaad"})
