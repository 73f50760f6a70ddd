"""A study of kind search: what its keys mean, what is refused and at which line, what its plan says."""

from __future__ import annotations

import pytest

from miras_search.study.loader import loads
from miras_search.study.problems import StudyError
from miras_search.study.search_plan import search_plan

TEXT = """\
name: s
kind: search
task: {name: mqar, length: 32}
model: {layers: 1, d_model: 16, heads: 1}
train: {steps: 20, batch: 8, eval_examples: 16, eval_every: 5}
base: delta_net
space: {bias: [dot, l2], train.lr: {log_uniform: [1e-3, 3e-2]}}
"""


def lines(*overrides: str, text: str = TEXT) -> list[str]:
    """What is wrong, without the place of an override."""
    with pytest.raises(StudyError) as found:
        loads(text, "t.yaml", overrides)
    return [str(problem) for problem in found.value.problems]


def told(*overrides: str) -> list[str]:
    return [line.removeprefix(f"--set {overrides[0]}: ").removeprefix("t.yaml:7:1: ") for line in lines(*overrides)]


def test_a_search_has_its_base_as_only_cell_and_defaults_that_confirm() -> None:
    study = loads(TEXT, "t.yaml")
    assert [cell.role for cell in study.cells] == ["base"]
    assert (study.kind, study.metric, study.seeds) == ("search", "accuracy", (0,))
    search = study.search
    assert search is not None
    assert (search.sampler, search.pruner, search.top, search.batch) == ("tpe", "none", 5, None)
    assert len(search.confirm_seeds) == 10
    assert not set(search.confirm_seeds) & set(study.seeds)
    sync = loads(TEXT, "t.yaml", ["schedule={sync: 3}", "objectives={loss: minimize, params: minimize}"])
    assert sync.search is not None
    assert (sync.search.batch, sync.metric) == (3, "loss")
    assert [(it.name, it.split) for it in sync.search.objectives] == [("loss", "validation"), ("params", "")]


def test_more_trials_are_the_same_search_and_another_space_is_not() -> None:
    one = loads(TEXT, "t.yaml").space_hash
    assert loads(TEXT, "t.yaml", ["trials=7", "confirm={top: 2}"]).space_hash == one
    assert loads(TEXT, "t.yaml", ["space.bias=[dot]"]).space_hash != one
    assert loads(TEXT, "t.yaml", ["seeds=2"]).space_hash != one


def test_each_kind_refuses_the_keys_of_the_other() -> None:
    assert lines(text=TEXT + "vary: {bias: [dot]}\n") == [
        "t.yaml:8:1: vary: belongs to kind: ablation; a search chooses by space, objectives and constraints"
    ]
    assert lines("kind=ablation") == [
        "t.yaml:7:1: space: belongs to kind: search; an ablation lists its levels under vary"
    ]
    assert lines(text=TEXT.replace("space", "spice"))[0].startswith("t.yaml:1:1: 'space' is missing")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("objectives={accuracy: minimize}", "accuracy is better the other way: write maximize"),
        (
            "objectives={inner_step_scale: minimize}",
            "inner_step_scale is no result that every training has: take accuracy, loss",
        ),
        ("objectives={}", "nothing is sought: name a metric, as in {accuracy: maximize}"),
        ("constraints={params: -1}", "expected the most that it may be, a number above 0, got -1"),
        ("pruner=wilcoxon", "wilcoxon races seeds and tasks, and a trial has 1 of them: set seeds: 3 or more"),
        (
            "sampler=cmaes",
            "cmaes draws numbers only, and bias is a choice: take tpe, or leave numbers alone in the space",
        ),
        ("seeds=[1000000]", "seeds from 1000000 on are kept for the confirmation: take smaller ones"),
        ("schedule=often", "expected async, sync, or sync with how many trials at once, 1 to 1000, got 'often'"),
        ("trials=0", "0 must be at least 1"),
    ],
)
def test_what_cannot_work_is_refused_with_a_cure(override: str, problem: str) -> None:
    assert told(override) == [problem]


def test_a_pruner_needs_one_objective_with_a_curve_and_looks_on_the_way() -> None:
    assert told("pruner=asha", "train.eval_every=0") == [
        "asha judges by looks at the validation split on the way: set train.eval_every: 2"
    ]
    assert told("pruner=median", "objectives={params: minimize}") == [
        "params has no curve to judge a trial by: take none"
    ]
    problem = "hyperband ranks by one objective and there are 2: take none"
    assert lines("objectives={accuracy: maximize, params: minimize}", text=TEXT + "pruner: hyperband\n") == [
        f"t.yaml:8:1: pruner: {problem}"
    ]


def test_the_plan_counts_the_search_and_its_confirmation() -> None:
    study = loads(TEXT, "t.yaml", ["trials=30", "confirm={top: 3, seeds: 4}", "seeds=2"])
    plan = search_plan(study, {"complete": 10, "waiting": 3}, seconds_per_job=2.0, slots=2)
    assert (plan.jobs, plan.confirm_jobs, plan.remaining) == (60, 16, 66)
    assert plan.estimate_seconds == 66.0
    assert plan.size == float("inf")
    assert "fresh seeds" in " ".join(plan.notes)
    few = loads(TEXT, "t.yaml", ["space={bias: [dot, l2]}", "trials=30"])
    assert "the space has 2 points for 30 trials" in search_plan(few).notes[0]
