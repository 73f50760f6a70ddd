"""Spaces of designs: what they hold, how points are drawn from them, and that points and parameters are one to one."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import optuna
import pytest
from ruamel.yaml import YAML

from miras_search.bench import space_audit
from miras_search.bench.space_audit import Draw
from miras_search.models.config import ModelConfig
from miras_search.space.combinations import DIMS
from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError
from miras_search.space.presets import preset
from miras_search.space.rules import violations
from miras_search.space.sampling import Sample, Space
from miras_search.training.config import TrainConfig

CONFIGS = {"model": ModelConfig(), "train": TrainConfig()}
SEARCH: dict[str, object] = {
    "memory": ["matrix", {"mlp": {"expansion": [2, 4]}}],
    "bias": ["l2", {"huber": {"form": ["coordinate", "norm"], "delta": {"source": ["fixed", "data"], "scope": "any",
                                                                        "value": {"log_uniform": [0.1, 4]}}}}],
    "retention": ["none", "kl", "l2", "elastic_net"],
    "algorithm": ["gd", "momentum", "implicit"],
    "execution": {"gradient_at": "any"},
    "train.lr": {"log_uniform": [1e-4, 3e-2]},
    "model.conv": [0, 4],
}  # fmt: skip


def study(seed: int = 0) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))


@pytest.fixture(scope="module")
def search() -> Space:
    return Space.parse(SEARCH, ("space",), configs=CONFIGS)


class Odometer(Draw):
    """Answers by numbers, the first choice where there are no more, and takes down how many choices there were."""

    def __init__(self, numbers: list[int]) -> None:
        super().__init__(random.Random(0))
        self.numbers, self.sizes = numbers, list[int]()

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        if len(self.sizes) == len(self.numbers):
            self.numbers.append(0)
        self.sizes.append(len(choices))
        return choices[self.numbers[len(self.sizes) - 1]]


def every(space: Space) -> Iterator[Sample]:
    """All points of a space without ranges."""
    numbers: list[int] = []
    while True:
        draw = Odometer(numbers)
        yield space.suggest(draw)
        while numbers and numbers[-1] == draw.sizes[len(numbers) - 1] - 1:
            numbers.pop()
        if not numbers:
            return
        numbers[-1] += 1


def test_a_space_holds_exactly_the_valid_combinations() -> None:
    specs: dict[str, list[Any]] = {
        "memory": ["matrix", {"matrix": {"norm": "layer"}}, {"mlp": {"depth": 2}}, "vector", "attention"],
        "bias": ["l2", {"l2": {"scale": "full"}}, {"huber": {"delta": {"source": "data", "scope": "value"}}}],
        "retention": ["none", "l2", {"l2": {"keep": {"scope": "key"}, "coupled": True}}, {"kl": {"slice": "row"}}],
        "algorithm": ["gd", "implicit", "erase_write", "newton", "nonparametric", "muon"],
        "step": ["data", {"source": "data", "scope": "value"}],
        "execution": [{"gradient": g, "link_refresh": r} for g in ("exact", "frozen") for r in ("token", "chunk")],
    }  # fmt: skip
    wanted = set()
    for chosen in itertools.product(*specs.values()):
        point = DesignPoint.parse(dict(zip(specs, chosen, strict=True)))
        if not violations(point, *DIMS):
            wanted.add(str(point.to_plain()))
    listed = {**specs, "execution": {"gradient": ["exact", "frozen"], "link_refresh": ["token", "chunk"]}}
    unreachable = listed["bias"].pop()  # a norm has one threshold a head
    space = Space.parse(listed)
    found = [str(sample.design.to_plain()) for sample in every(space)]
    assert len(found) == len(set(found)) == space.size()
    assert set(found) == wanted
    with pytest.raises(SpecError, match=r"bias\.2: huber .*is in no valid combination.*by head only"):
        Space.parse({**listed, "bias": [*listed["bias"], unreachable]})


def test_parameters_and_points_are_one_to_one(search: Space) -> None:
    asked, known = study(), search.distributions()
    for _ in range(80):
        trial = asked.ask()
        sample = search.suggest(trial)
        assert not violations(sample.design, *DIMS)
        assert trial.params == search.to_params(sample.design, sample.settings)
        assert trial.distributions.items() <= known.items()
        again = search.from_params(trial.params)
        assert again == sample
        assert again.design.hash == DesignPoint.parse(sample.design.to_plain()).hash == sample.design.hash


def test_settings_are_asked_for_only_where_they_are_in_force(search: Space) -> None:
    asked = study(3)
    trials = [asked.ask() for _ in range(100)]
    samples = [search.suggest(trial) for trial in trials]
    for trial, sample in zip(trials, samples, strict=True):
        assert ("memory.mlp.expansion" in trial.params) == (sample.design.memory.name == "mlp")
        assert ("bias.huber.delta.value" in trial.params) == (sample.design.bias.name == "huber")
        scoped = any(name.startswith("bias.huber.delta.scope") for name in trial.params)
        plain: Any = sample.design.bias.to_plain() if hasattr(sample.design.bias, "to_plain") else sample.design.bias
        is_channel = plain.name == "huber" and plain.form == "coordinate" and plain.delta.source == "data"
        assert scoped == is_channel
        assert sample.levels["memory"] == sample.design.memory.name
        assert sample.settings["train.lr"] == trial.params["train.lr"]
    assert {sample.design.algorithm.name for sample in samples} == {"gd", "momentum", "implicit"}
    assert {sample.settings["model.conv"] for sample in samples} == {0, 4}


def test_where_fewer_options_fit_the_name_says_which(search: Space) -> None:
    names = search.distributions()
    assert {"memory", "algorithm", "algorithm{gd,momentum}", "retention", "retention{none,l2}"} <= names.keys()
    assert names["algorithm"].choices == ("gd", "momentum", "implicit")
    asked = study(1)
    for _ in range(60):
        trial = asked.ask()
        if search.suggest(trial).design.algorithm.name == "implicit":  # a matrix, and l2 is the one bias that fits
            assert not any(name.startswith("bias") for name in trial.params)
            assert "retention{none,l2}" in trial.params


def test_the_same_seed_draws_the_same_points(search: Space) -> None:
    first, second, other = study(5), study(5), study(6)
    drawn = [[search.suggest(one.ask()) for _ in range(20)] for one in (first, second, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_preset_is_enqueued_by_its_parameters() -> None:
    space = Space.parse({"memory": "any", "algorithm": "any", "bias": "any", "retention": "any",
                         "execution": {"gradient": "any"}})  # fmt: skip
    delta_net = preset("delta_net")
    assert space.contains(delta_net)
    asked = study()
    asked.enqueue_trial(space.to_params(delta_net))
    assert space.suggest(asked.ask()).design.hash == delta_net.hash
    assert not space.contains(dataclasses.replace(delta_net, step=dataclasses.replace(delta_net.step, value=0.25)))
    with pytest.raises(SpecError, match=r"memory: mlp.* is not in this space"):
        Space.parse({"memory": ["matrix", "vector"]}).to_params(preset("titans_lmm"))


def test_another_spelling_of_a_function_is_the_same_point() -> None:
    space = Space.parse({"bias": ["l2", {"lp": {"p": [1.5, 2.0]}}], "memory": [{"mlp": {"depth": [1, 2]}}, "matrix"]})
    assert space.size() == 2 * 3  # lp at 2 is l2; a perceptron of depth 1 is a matrix with a norm, not the plain one
    assert space.contains(DesignPoint.parse({"bias": {"lp": {"p": 2.0}}}))
    idle = {"gradient": "exact", "chunk": 64}
    assert space.contains(DesignPoint.parse({"bias": {"lp": {"p": 1.5}}, "execution": idle}))


def test_numbers_of_a_range_count_as_endless_whole_ones_do_not() -> None:
    assert Space.parse({"memory": {"mlp": {"expansion": {"int": [1, 4]}}}, "bias": ["l2", "dot"]}).size() == 8
    assert Space.parse({"retention": {"l2": {"keep": {"uniform": [0.5, 0.9]}}}}).size() == math.inf
    assert Space.parse({"train.lr": [0.1, 0.2, 0.3]}, configs=CONFIGS).size() == 3


def test_a_combination_counts_if_it_is_valid_over_the_whole_range() -> None:
    steps = {"multi_step": {"writes": {"int": [1, 3]}, "own_keys": "any"}}
    space = Space.parse({"algorithm": steps, "bias": ["dot", "logcosh"]})
    once: dict[str, Any] = {"algorithm": {"multi_step": {"writes": 1, "own_keys": False}}}
    assert space.contains(DesignPoint.parse({**once, "bias": "logcosh"}))
    with pytest.raises(SpecError, match="a combination counts if all of its ranges are valid"):
        space.to_params(DesignPoint.parse({**once, "bias": "dot"}))  # valid, but not with two or three writes
    assert space.size() == 3 * 2 + 3


def test_a_range_alone_is_a_fixed_gate_of_that_value() -> None:
    space = Space.parse({"retention": {"l2": {"keep": {"uniform": [0.5, 0.9]}}}, "step": [0.5, "data"]})
    sample = space.suggest(study(2).ask())
    assert sample.design.retention.keep.source == "fixed"
    assert 0.5 <= sample.design.retention.keep.value <= 0.9
    low = DesignPoint.parse({"retention": {"l2": {"keep": 0.5}}})
    assert space.to_params(low) == {"retention.l2.keep": 0.5, "step": "data"}
    with pytest.raises(SpecError, match=r"retention\.l2\.keep: 0\.95 is no number between 0\.5 and 0\.9"):
        space.from_params({"retention.l2.keep": 0.95, "step": "data"})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("all", "space: expected any, or a mapping of axes"),
        ({"memroy": "any"}, "space.memroy: unknown axis 'memroy' (did you mean 'memory'?)"),
        ({"bias": ["l2", "hubr"]}, "space.bias.1: unknown bias 'hubr' (did you mean 'huber'?)"),
        ({"bias": ["any"]}, "space.bias.0: unknown bias 'any' (`any` stands alone)"),
        ({"bias": []}, "space.bias: the list is empty"),
        ({"bias": ["l2", "l2"]}, "space.bias.1: l2 is listed twice: drop one"),
        ({"bias": {"huber": {"from": ["norm"]}}}, "space.bias.huber.from: unknown setting (did you mean 'form'?)"),
        ({"bias": {"huber": {"form": ["norm", "nrm"]}}}, "space.bias.huber.form.1: form: 'nrm' is not one of"),
        ({"bias": ["l2", {"lp": {"p": [1.5, 0.5]}}]}, "space.bias.1.lp.p.1: p: 0.5 is not convex"),
        ({"bias": {"lp": {"p": {"uniform": [0.5, 2]}}}}, "space.bias.lp.p: 0.5 is not convex"),
        ({"bias": {"lp": {"p": {"unifrm": [1, 2]}}}}, "got {'unifrm': [1, 2]} (did you mean 'uniform'?)"),
        ({"bias": {"lp": {"p": {"uniform": [2, 1]}}}}, "space.bias.lp.p.uniform: 2 is not below 1"),
        ({"bias": {"lp": {"p": {"uniform": 2}}}}, "space.bias.lp.p.uniform: expected two finite numbers"),
        ({"bias": {"lp": {"p": {"log_uniform": [0, 1]}}}}, "space.bias.lp.p.log_uniform: 0 has no logarithm"),
        ({"bias": {"lp": {"p": "any"}}}, "space.bias.lp.p: any says nothing of a number"),
        ({"bias": {"lp": {"p": [1.5, {"uniform": [2, 3]}]}}}, "a range stands alone, not in a list"),
        ({"bias": {"huber": {"form": {"uniform": [0, 1]}}}}, "space.bias.huber.form: this setting is no number"),
        ({"memory": {"mlp": {"depth": {"uniform": [1, 2]}}}}, "depth.uniform: this setting is a whole number: use int"),
        ({"memory": {"mlp": {"depth": {"int": [1.5, 2]}}}}, "depth.int: [1.5, 2] are not whole numbers"),
        ({"step": {"scope": ["head", "chanel"]}}, "space.step.scope.1: scope: 'chanel' is not one of"),
        ({"step": {"value": {"uniform": [0.5, 1.5]}}}, "space.step.value: a data sigmoid gate starts"),
        ({"execution": {"gradient": ["exact", "frosen"]}}, "execution.gradient.1: unknown gradient mode 'frosen'"),
        ({"execution": "frozen"}, "space.execution: expected any or settings of execution"),
        ({"step.scope": ["head"]}, "space.step.scope: write the settings inside: step: {scope: ...}"),
        ({"control": ["ascent"]}, "space.control: a control refutes a claim and is no candidate"),
        ({"train.lrr": [0.1]}, "space.train.lrr: train has no setting 'lrr' (did you mean 'lr'?)"),
        ({"train.lr": [0.1, -1.0]}, "space.train.lr.1: lr: -1 must be a finite number"),
        ({"memory": ["matrix", "attention"], "algorithm": "gd"}, "space.memory.1: attention is in no valid"),
        ({"memory": "attention", "algorithm": "gd"}, "space: no combination of these options is valid, for example: "),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_with_place_and_cure(spec: object, message: str) -> None:
    with pytest.raises(SpecError) as told:
        Space.parse(spec, ("space",), configs=CONFIGS)
    assert message in str(told.value)


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(SpecError) as told:
        Space.parse({"bias": "huger", "memory": {"mlp": {"widht": 3}}, "train.lr": "any"}, configs=CONFIGS)
    assert [problem.where for problem in told.value.problems] == [("memory", "mlp", "widht"), ("bias",), ("train.lr",)]


def test_a_point_of_no_space_has_no_parameters(search: Space) -> None:
    with pytest.raises(SpecError, match="memory: the parameter is missing"):
        search.from_params({})
    with pytest.raises(SpecError, match="memory: 'mpl' is not one of matrix, mlp"):
        search.from_params({"memory": "mpl"})
    with pytest.raises(SpecError, match=r"train\.lr: 0\.5 is not in this space"):
        search.to_params(DesignPoint(), {"train.lr": 0.5})
    with pytest.raises(SpecError, match="control: "):
        search.to_params(DesignPoint.parse({"control": "ascent"}))


def test_a_space_costs_no_optuna_until_it_is_asked_for_distributions() -> None:
    code = (
        "import sys; from miras_search.space.sampling import Space; space = Space.parse('any'); "
        "assert not {'optuna', 'torch'} & set(sys.modules); space.distributions(); assert 'optuna' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


GATES: Mapping[str, Any] = {"source": "any", "scope": "any"}


@pytest.fixture(scope="module")
def whole() -> Space:
    return Space.parse(space_audit.whole(GATES))


def test_points_of_the_whole_space_are_valid_lead_back_and_train(whole: Space) -> None:
    lines: list[str] = []
    audit = space_audit.run(40, 4, seed=1, steps=2, space=whole, tell=lines.append)
    assert not audit.failures
    assert (audit.checked, audit.trained.total()) == (40, 4)
    assert space_audit.report(audit).splitlines()[-1] == "44 passed, 0 failed"
    assert "parameters" in lines[0]


def test_points_keep_their_hash_through_yaml(whole: Space) -> None:
    yaml = YAML(typ="safe", pure=True)
    for sample, _ in space_audit.drawn(whole, 10, seed=4):
        text = io.StringIO()
        yaml.dump(sample.design.to_plain(), text)
        assert DesignPoint.parse(yaml.load(text.getvalue())).hash == sample.design.hash


def test_an_audit_tells_what_failed_and_where(whole: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(space_audit, "trained", broken)
    audit = space_audit.run(4, 2, space=whole, tell=lambda _: None)
    *lines, verdict = space_audit.report(audit).splitlines()
    assert verdict == "4 passed, 2 failed"
    assert "training: RuntimeError: no such kernel" in lines
    design = DesignPoint.parse({"memory": "attention"})
    assert "not valid" in str(space_audit.problem(whole, Sample(design, {}, {}), {}))
