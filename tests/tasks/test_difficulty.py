"""Ladders of difficulty: what moves, how far, and that every rung is a task."""

from __future__ import annotations

from miras_search.tasks import TASKS, task_from_spec, task_to_spec
from miras_search.tasks.base import HARDER
from miras_search.tasks.difficulty import ladder


def test_every_knob_is_a_setting_of_its_task_and_every_rung_a_task() -> None:
    for name, kind in TASKS.items():
        spec = task_to_spec(task_from_spec({"name": name, **({"length": 16} if name == "text" else {})}))
        assert set(HARDER[kind]) <= set(spec), name
        rungs, place = ladder(spec)
        assert rungs[place] == spec
        for rung in rungs:
            task_from_spec(rung)


def test_the_first_knob_moves_first_and_the_next_from_its_end_on() -> None:
    spec = task_to_spec(task_from_spec({"name": "noisy_recall", "vocab": 40, "length": 64, "noise": 0.4}))
    rungs, place = ladder(spec)
    shown = [(rung["vocab"], rung["length"], rung["noise"]) for rung in rungs]
    assert shown[place + 1] == (50, 64, 0.4) and shown[place - 1] == (32, 64, 0.4)
    vocabularies = [vocab for vocab, length, noise in shown if (length, noise) == (64, 0.4)]
    assert vocabularies == sorted(vocabularies) and vocabularies[-1] == 153  # four times is the end
    assert shown[place + 7] == (153, 80, 0.4)
    assert shown[0][2] == 0.0 and shown[-1][2] == 0.9  # noise comes last
    assert all(length % 2 == 0 for _, length, _ in shown)


def test_a_task_without_knobs_is_one_rung() -> None:
    spec = {"name": "text", "corpus": "stdlib", "length": 256, "max_bytes": 1000}
    assert ladder(spec) == ([spec], 0)
