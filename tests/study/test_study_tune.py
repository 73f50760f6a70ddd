"""`tune` in a study file: the trials that it makes, and what is refused."""

from __future__ import annotations

import pytest

from miras_search.study.loader import Study, StudyError, loads
from miras_search.study.plan import confounds, plan

HEAD = "name: t\ntask: mqar\nbase: delta_net\nvary: {bias: [dot, kl]}\nseeds: 6\n"
RATES = "train.lr: [3e-2, 1e-2, 1e-3, 3e-3]"


def read(text: str, *overrides: str) -> Study:
    return loads(HEAD + text, "t.yaml", overrides)


def test_every_cell_gets_the_same_settings() -> None:
    study = read(f"controls: [no_write]\ntune: {{{RATES}, model.conv: [0, 4], step.value: [0.1, 0.5]}}\n")
    assert study.tuning is not None
    assert study.tuning.values["train.lr"] == ("0.001", "0.003", "0.01", "0.03")  # in ascending order
    assert len(study.trials) == len(study.cells) * 16
    mine = study.trials[16:32]
    assert {one.design.bias.name for one in mine} == {"dot"}
    assert len({(one.train.lr, one.model.conv, one.design.step.value) for one in mine}) == 16
    assert [one.number for one in study.trials] == list(range(64))
    assert mine[0].name == "dot / lr=0.001 / conv=0 / value=0.1"
    assert mine[0].changes == {
        "bias": "dot",
        "train.lr": "0.001",
        "model.conv": "0",
        "step.value": "data(value=0.1)",
    } | {"step.value": "0.1"}
    assert study.cells[0].changes == {}


def test_seeds_of_its_own_and_the_plan() -> None:
    study = read(f"tune: {{{RATES}}}\n")
    assert study.tuning is not None and len(study.tuning.seeds) == 3
    assert not set(study.tuning.seeds) & set(study.seeds)
    found = plan(study)
    assert (found.tuning_jobs, found.jobs) == (3 * 4 * 3, 3 * 4 * 3 + 3 * 6)
    assert plan(study, {"complete": 40}).remaining == 14
    assert any("tune: {train.lr" in line for line in confounds(read("")))
    assert not any("learning rate" in line for line in confounds(study))
    assert read(f"tune: {{{RATES}, seeds: [1001, 1002]}}\n").tuning.seeds == (1001, 1002)


def test_only_what_is_tuned_changes_the_hash() -> None:
    plain, tuned = read(""), read(f"tune: {{{RATES}}}\n")
    assert "tune" not in plain.config
    assert plain.space_hash != tuned.space_hash != read(f"tune: {{{RATES}, seeds: 2}}\n").space_hash
    assert tuned.space_hash == read(f"tune: {{{RATES}}}\n", "seeds=8").space_hash


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tune: {train.lr: [1e-3, 1e-2]}", "tune.train.lr: expected a list of 4 values or more, got [0.001, 0.01]"),
        ("tune: {train.lr: [1e-3, 2e-3, 1e-2, 1.0]}", "tune.train.lr: rates are tried on a log scale"),
        ("tune: {train.lr: [1e-3, 1e-3, 1e-2, 1.0]}", "tune.train.lr: rates are tried on a log scale"),
        ("tune: {train.rl: [1, 2]}", "tune.train.rl: train has no setting 'rl' (known: batch"),
        ("tune: {model.conv: [4, 4]}", "tune.model.conv: a value is there twice"),
        ("tune: {model.conv: [4, 99]}", "tune.model.conv.1: conv: l2: 99 is not between 0 (none) and 64"),
        ("tune: {seeds: 2}", "tune: nothing is tuned: name a setting, as in {train.lr: [1e-3, 3e-3, 1e-2, 3e-2]}"),
        ("tune: {model.conv: [0, 4], seeds: [5, 7]}", "tune.seeds: 5 is among the reported seeds too"),
        ("tune: {model.conv: [0, 4], seeds: [9, 9]}", "tune.seeds: seeds are different whole numbers"),
        ("tune: {model.conv: [0, 4], seeds: many}", "tune.seeds: expected how many seeds (1 to 1000), or a list"),
        ("tune: {retention: [l2, none]}", "tune.retention: a whole choice is what a study compares"),
        ("tune: {bias.delta: [1, 2]}", "tune.bias.delta: vary.bias is what the study compares"),
        ("tune: {execution.chunk: [8, 16]}", "tune.execution.chunk: a cell's execution is held"),
        ("tune: {train.steps: [8, 16]}", "tune.train.steps: a cell that trains for longer wins by that"),
        ("tune: {retention.keep: [0.1, 0.2]}", "tune.retention.keep.0: l2: the retention 'none' has no setting 'keep'"),
        ("tune: {model.rope: [true, false], model.key_dim: [3, 4]}", "rope: l2: channels are turned in pairs"),
        ("metric: params\ntune: {model.conv: [0, 4]}", "metric: params is a cost, and tuning chooses by quality"),
        ("tune: [1]", "tune: expected a mapping of settings, got [1]"),
    ],
)
def test_what_is_refused(text: str, expected: str) -> None:
    with pytest.raises(StudyError) as caught:
        read(f"{text}\n")
    assert expected in str(caught.value)


def test_the_settings_that_a_refusal_names_are_taken() -> None:
    assert read("tune: {train.lr: [1e-3, 3e-3, 1e-2, 3e-2]}\n").tuning is not None


def test_a_level_with_a_rate_of_its_own_is_not_tuned_too() -> None:
    text = HEAD.replace("{bias: [dot, kl]}", "{preset: [{preset: gla, train: {lr: 1e-2}}]}").replace(
        "\nseeds", "\nexecution: own\nseeds"
    )
    with pytest.raises(StudyError, match=r"vary\.preset\.0\.train\.lr: train\.lr is tuned for every cell alike"):
        loads(f"{text}tune: {{{RATES}}}\n", "t.yaml")


def test_a_search_is_not_tuned() -> None:
    text = "name: t\nkind: search\ntask: mqar\nbase: delta_net\nspace: {bias: any}\ntune: {model.conv: [0, 4]}\n"
    with pytest.raises(StudyError, match="tune: belongs to kind: ablation"):
        loads(text, "t.yaml")
