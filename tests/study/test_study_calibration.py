"""What a calibration writes into a study file: two settings and its evidence, the rest as it was."""

from __future__ import annotations

import pytest

from miras_search.study.calibration import rewritten
from miras_search.study.loader import loads

TEXT = """\
# A question about biases.
name: t          # the name
# The task is noisy.
task: {name: noisy_recall, vocab: 40}   # small
train: {steps: 5, lr: 2e-2}
base: delta_net
vary:
  bias: [dot, kl]  # two of them
tune: {train.lr: [1e-3, 3e-3, 1e-2, 3e-2]}
"""


def test_the_rest_of_the_file_stays_and_evidence_is_replaced() -> None:
    once = rewritten(TEXT, {"vocab": 62}, 3e-3, [1e-3, 2e-3, 4e-3, 8e-3], ["first", "second"])
    study = loads(once, "t.yaml")
    assert (study.tasks[0].spec["vocab"], study.train.lr, study.train.steps) == (62, 3e-3, 5)
    assert study.tuning is not None and study.tuning.values["train.lr"] == ("0.001", "0.002", "0.004", "0.008")
    lines = once.splitlines()
    assert lines[:3] == TEXT.splitlines()[:3]
    assert lines[3:5] == ["# calibrated: first", "# calibrated: second"]
    assert lines[5].startswith("task: {name: noisy_recall, vocab: 62}") and lines[5].endswith("# small")
    assert "  bias: [dot, kl]  # two of them" in lines
    again = rewritten(once, {"vocab": 70}, 1e-2, [1e-3], ["third"])
    assert [line for line in again.splitlines() if line.startswith("# calibrated")] == ["# calibrated: third"]


@pytest.mark.parametrize("task", ["noisy_recall", "[noisy_recall]", "[{name: noisy_recall}]"])
def test_what_is_missing_is_added(task: str) -> None:
    text = rewritten(f"name: t\ntask: {task}\nbase: delta_net\n", {"vocab": 62}, 3e-3, [1e-3], ["one"])
    study = loads(text, "t.yaml")
    assert (study.tasks[0].spec["vocab"], study.train.lr, study.tuning) == (62, 3e-3, None)
