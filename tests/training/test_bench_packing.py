"""The packing benchmark: its rows agree with each other, and its table shows them."""

from __future__ import annotations

import json

import pytest

from miras_search.bench.packing import STEPS, main, run, table
from miras_search.models.config import ModelConfig

TASK = {"name": "mqar", "vocab": 16, "length": 16, "pairs": 2}
SMALL = ModelConfig(layers=1, d_model=8, heads=2)


def test_rows_say_how_many_trainings_fit_into_an_hour() -> None:
    result = run(packs=(1, 2), processes=(1,), device="cpu", steps=1, model=SMALL, task=TASK, batch=2)
    assert json.loads(json.dumps(result)) == result
    rows = result["rows"]
    assert isinstance(rows, list)
    assert [row["name"] for row in rows] == ["one process", "1 beside each other", "pack of 1", "pack of 2"]
    for row in rows:
        assert row["trainings_per_hour"] * row["step_ms"] * STEPS == pytest.approx(3.6e6 * row["trainings"])
        assert row["times_one"] == pytest.approx(row["trainings_per_hour"] / rows[0]["trainings_per_hour"])
    lines = table(result).splitlines()
    assert len(lines) == 6 and "mqar of 16 tokens, batch 2" in lines[0]
    assert len({len(line) for line in lines[1:]}) == 1  # columns line up


def test_a_training_beside_others_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miras_search.bench.packing.SOLO", "--no-such-option")
    with pytest.raises(RuntimeError, match="exit code 2"):
        run(packs=(), processes=(1,), device="cpu", steps=1, model=SMALL, task=TASK, batch=2)


def test_command_line_prints_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("miras_search.bench.packing.run", lambda **given: asked.append(given))
    monkeypatch.setattr("miras_search.bench.packing.table", lambda result: "the table")
    main(["--pack", "1,4", "--processes", "8", "--device", "cpu", "--steps", "3"])
    assert asked == [{"packs": [1, 4], "processes": [8], "device": "cpu", "steps": 3}]
    assert capsys.readouterr().out == "the table\n"
