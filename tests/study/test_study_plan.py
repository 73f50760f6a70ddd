"""Plans: how many jobs, what is left, what the seeds can show, and what would confound it."""

from __future__ import annotations

import json

import pytest

from miras_search.study.loader import Study, loads
from miras_search.study.plan import confounds, plan

HEAD = "name: t\ntask: [mqar, noisy_recall]\nbase: delta_net\n"


def read(text: str) -> Study:
    return loads(HEAD + text, "t.yaml")


def test_jobs_are_cells_by_tasks_by_seeds() -> None:
    found = plan(read("vary: {bias: [dot, kl]}\ncontrols: [no_write]\nseeds: 6\n"))
    assert (found.cells, found.tasks, found.seeds, found.jobs) == (4, 2, 6, 48)
    assert found.family == 2  # controls are not compared with each other's correction
    assert found.remaining == 48
    assert found.done == {}
    assert found.estimate_seconds is None
    assert json.loads(json.dumps(found.to_plain()))["jobs"] == 48


def test_what_is_done_is_not_planned_again() -> None:
    done = {"complete": 5, "diverged": 2, "failed": 1, "running": 3, "waiting": 13, "nothing": 0}
    found = plan(read("vary: {bias: [dot]}\nseeds: 6\n"), done, seconds_per_job=10.0, slots=4)
    assert found.jobs == 24
    assert found.remaining == 16
    assert found.estimate_seconds == 40.0
    assert found.done == {"complete": 5, "diverged": 2, "failed": 1, "running": 3, "waiting": 13}


def test_more_stored_than_planned_leaves_nothing() -> None:
    found = plan(read("seeds: 1\n"), {"complete": 10}, seconds_per_job=3.0)
    assert found.remaining == 0
    assert found.estimate_seconds == 0.0


@pytest.mark.parametrize(("seeds", "p"), [(1, 1.0), (2, 0.5), (6, 0.03125), (10, 2 / 1024), (24, 1 / 65_536)])
def test_a_plan_promises_the_smallest_p_that_the_test_reaches(seeds: int, p: float) -> None:
    assert plan(read(f"vary: {{bias: [dot]}}\nseeds: {seeds}\n")).smallest_p == p


def test_a_presets_own_layer_is_told_and_what_the_study_says_is_not() -> None:
    text = "vary: {preset: [transformer, gla]}\nseeds: 6\n"
    (said,) = (one for one in confounds(read(text)) if "their own layer" in one)
    assert "transformer (" in said and "rope true" in said and "gla (" in said
    held = "model: {rope: true, qk_norm: none, activation: none, output_norm: none, output_gate: false, conv: 0}\n"
    left = [one for one in confounds(read(text + held)) if "their own layer" in one]
    assert not left or "rope" not in left[0]
    assert not [one for one in confounds(read("vary: {bias: [dot]}\nseeds: 6\n")) if "their own layer" in one]


def test_biases_that_write_in_steps_of_their_own_are_told() -> None:
    text = "vary: {bias: [dot]}\nseeds: 6\n"
    assert sum("steps of its own size" in one for one in confounds(read(text))) == 1
    for other in (f"{text}train: {{inner_step: match_base}}\n", "vary: {retention: [l2]}\nseeds: 6\n"):
        assert not any("steps of its own size" in one for one in confounds(read(other)))


def test_a_hybrid_that_sees_everything_is_told() -> None:
    text = "model: {layers: 2, attention_every: 2}\nvary: {model.attention_window: [8, 64]}\nseeds: 6\n"
    (said,) = (one for one in confounds(read(text)) if "full attention" in one)
    assert said == (
        "attention_window=64 has full attention: a window of 64 holds all 64 tokens of mqar; set model.attention_window"
    )


def test_a_look_at_flips_that_are_drawn_may_be_vain() -> None:
    late = "top_up: {max_seeds: 130, looks: 2, spending: late}"
    found = confounds(read(f"vary: {{bias: [dot]}}\nseeds: 24\n{late}\n"))
    assert any("the look at 24 (smallest p 1.5e-05" in one and "cannot decide anything" in one for one in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seeds: 2\n", "2 seeds: the spread of accuracy is not estimated and the smallest p is 0.5; use at least 6"),
        ("seeds: 1\n", "one seed: the spread of accuracy is not estimated and the smallest p is 1; use at least 6"),
        (
            "seeds: 5\n",
            "5 seeds: the smallest p is 0.062, so nothing can be called decided at 0.05; use at least 6",
        ),
        ("", "no negative control shows what the model does without its memory: add `controls: [no_write]`"),
        (
            "vary: {bias: [dot]}\n",
            "the learning rate is not tuned: every cell trains at lr 0.01, so a ranking may be one of rates; "
            "set `tune: {train.lr: [1e-3, 3e-3, 1e-2, 3e-2]}`",
        ),
        (
            "vary: {memory: [mlp], algorithm: [momentum]}\n",
            "budgets are not matched: mlp, momentum have other parameters or state than delta_net; "
            "compare the params and state columns",
        ),
        (
            "vary: {preset: [yaad]}\nexecution: own\n",
            "executions are mixed: each design runs its own, so a difference measures that too; "
            "hold one by `execution:`",
        ),
    ],
)
def test_confounds_are_named_with_their_cure(text: str, expected: str) -> None:
    assert expected in confounds(read(text))


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        ("seeds: 6\n", "seeds"),
        ("controls: [no_write]\n", "negative control"),
        ("vary: {bias: [dot, huber]}\n", "budgets"),
        ("vary: {train.lr: [1e-3]}\n", "learning rate"),
        ("design: factorial\nvary: {bias: [dot, l2], train.lr: [1e-3, 1e-2]}\n", "learning rate"),
        ("vary: {preset: [yaad]}\nexecution: {gradient: frozen}\n", "mixed"),
    ],
)
def test_a_confound_that_is_not_there_is_not_named(text: str, absent: str) -> None:
    assert not [line for line in confounds(read(text)) if absent in line]


def test_a_clean_study_has_no_confounds() -> None:
    text = "design: factorial\nvary: {bias: [dot, l2], train.lr: [1e-3, 1e-2]}\ncontrols: [no_write]\nseeds: 6\n"
    assert confounds(read(f"{text}train: {{inner_step: match_base}}\n")) == []
