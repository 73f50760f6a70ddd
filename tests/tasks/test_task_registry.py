"""The registry, specifications, facts and random streams that all tasks share."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from miras_search.space.fields import SpecError
from miras_search.tasks import IGNORE, TASKS, Task, facts, register_task, task_from_spec, task_to_spec
from miras_search.tasks.base import Batch, stream
from miras_search.tasks.mqar import Mqar

SPECS: list[dict[str, object]] = [
    {"name": "mqar"},
    {"name": "mqar", "vocab": 21, "length": 20, "pairs": 5, "power": 1, "filler": "zero"},
    {"name": "noisy_recall", "vocab": 48, "length": 96, "noise": 0.4},
    {"name": "noisy_recall", "noise": 0, "noise_vocab": 0, "vocab": 9, "targets": "next"},
    {"name": "text", "length": 32, "max_bytes": 100_000},
]


def equal(one: Batch, other: Batch) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(Batch)
    )


@pytest.fixture(params=SPECS, ids=lambda spec: "-".join(map(str, spec.values())))
def task(request: pytest.FixtureRequest) -> Task:
    return task_from_spec(request.param)


def test_spec_round_trip_spells_every_setting_out(task: Task) -> None:
    spec = task_to_spec(task)
    assert spec["name"] == task.name
    assert set(spec) == {"name"} | {
        setting.name for fact in facts() if fact.name == task.name for setting in fact.settings
    }
    assert task_from_spec(spec) == task


def test_batches_have_the_shapes_and_ranges_the_task_states(task: Task) -> None:
    for batch in (task.train_batch(1, 0, 6), task.evaluation("validation", 2, 6), task.evaluation("test", 2, 6)):
        assert batch.tokens.shape == (6, task.sequence_length)
        assert batch.positions.shape == batch.targets.shape == (6, task.labels)
        for array in (batch.tokens, batch.positions, batch.targets):
            assert array.dtype == np.int64
            assert array.flags.writeable and array.flags.c_contiguous
        assert batch.tokens.min() >= 0 and batch.tokens.max() < task.vocab_size
        assert batch.positions.min() >= 0 and batch.positions.max() < task.sequence_length
        labelled = batch.targets != IGNORE
        assert labelled.any(axis=1).all(), "a sequence without a label teaches nothing"
        assert (batch.positions[~labelled] == 0).all()
        assert batch.targets[labelled].min() >= 0 and batch.targets[labelled].max() < task.vocab_size
    assert 0 < task.chance < 1


def test_no_position_is_labelled_twice(task: Task) -> None:
    batch = task.train_batch(1, 0, 6)
    for positions, targets in zip(batch.positions, batch.targets, strict=True):
        labelled = positions[targets != IGNORE]
        assert len(set(labelled.tolist())) == len(labelled)


def test_a_batch_depends_on_its_arguments_alone(task: Task) -> None:
    first = task.train_batch(7, 500, 4)
    task.train_batch(7, 501, 4)
    np.random.default_rng(0).random()
    again = task_from_spec(task_to_spec(task))
    assert equal(first, again.train_batch(7, 500, 4)), "step 500 must not need steps 0 to 499"
    assert equal(task.evaluation("test", 7, 4), again.evaluation("test", 7, 4))


def test_batches_leave_the_global_generator_alone(task: Task) -> None:
    before = np.random.get_state(legacy=False)["state"]["key"].copy()
    task.train_batch(0, 0, 4)
    task.evaluation("test", 0, 4)
    assert np.array_equal(before, np.random.get_state(legacy=False)["state"]["key"])


def test_seed_step_and_split_each_change_the_data(task: Task) -> None:
    batches = [
        task.train_batch(0, 0, 4),
        task.train_batch(0, 1, 4),
        task.train_batch(1, 0, 4),
        task.evaluation("validation", 0, 4),
        task.evaluation("test", 0, 4),
        task.evaluation("validation", 1, 4),
    ]
    assert len({batch.tokens.tobytes() for batch in batches}) == len(batches)


@pytest.mark.parametrize(
    ("spec", "path", "what"),
    [
        ({}, ("task",), "'name' is missing"),
        ({"name": "mqra"}, ("task", "name"), "did you mean 'mqar'?"),
        ({"name": ["mqar"]}, ("task", "name"), "unknown task ['mqar']"),
        ({"name": "mqar", "pair": 3}, ("task", "pair"), "did you mean 'pairs'?"),
        ({"name": "mqar", "vocab": "64"}, ("task", "vocab"), "expected a whole number, got '64'"),
        ({"name": "noisy_recall", "noise": True}, ("task", "noise"), "expected a number, got True"),
        ({"name": "text", "length": 0}, ("task", "length"), "0 must be at least 1"),
    ],
)
def test_a_bad_spec_names_place_value_and_cure(spec: dict[str, object], path: tuple[str, ...], what: str) -> None:
    with pytest.raises(SpecError) as error:
        task_from_spec(spec, ("task",))
    (problem,) = error.value.problems
    assert problem.where == path
    assert what in problem.what


def test_facts_describe_every_task_and_setting_without_reading_files() -> None:
    listed = facts()
    assert [fact.name for fact in listed] == sorted(TASKS) == ["mqar", "noisy_recall", "text"]
    for fact in listed:
        assert fact.summary and fact.source
        assert all(setting.help for setting in fact.settings)
        assert task_to_spec(task_from_spec({"name": fact.name})) == {
            "name": fact.name,
            **{setting.name: setting.default for setting in fact.settings},
        }


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="'mqar' is already taken by Mqar"):
        register_task("mqar")(Mqar)


def test_streams_of_large_seeds_do_not_run_into_each_other() -> None:
    # numpy would turn both triples into the entropy words 1, 1, 2
    one, other = stream(1 + 2**32, "test", 0), stream(1, "validation", 2)
    assert one.integers(2**63) != other.integers(2**63)


@pytest.mark.parametrize(("seed", "step"), [(-1, 0), (2**64, 0), (0, -1), (0, 2**32)])
def test_seeds_and_steps_out_of_range_are_refused(seed: int, step: int) -> None:
    with pytest.raises(ValueError, match="whole numbers from 0"):
        stream(seed, "train", step)


def test_tasks_load_without_heavy_packages() -> None:
    heavy = "{'torch', 'triton', 'ray', 'optuna', 'sqlalchemy', 'pydantic', 'pandas'}"
    program = f"import sys, miras_search.tasks; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
