"""A search as a user drives it: run in pieces, looked at with every reader, refused when changed, a trial run again."""

from __future__ import annotations

from pathlib import Path

import pytest

SEARCH = """\
name: sought
question: Which rate?
kind: search
task: {name: mqar, vocab: 16, length: 16, pairs: 2}
model: {layers: 1, d_model: 8, heads: 1}
train: {steps: 4, batch: 2, eval_examples: 4, eval_every: 2}
base: delta_net
space: {bias: [dot, l2], train.lr: {log_uniform: [1e-3, 3e-2]}}
trials: 4
confirm: {top: 1, seeds: 2}
presets: false
schedule: {sync: 2}
"""
LOCAL = ("--executor", "local", "--workers", "1")


@pytest.fixture
def search_file(here: Path) -> Path:
    path = here / "sought.yaml"
    path.write_text(SEARCH)
    return path


def test_a_plan_of_a_search_tells_of_compiled_steps(cli, monkeypatch: pytest.MonkeyPatch, search_file: Path) -> None:
    """Counted of one trial, whose design no other has."""
    monkeypatch.setattr("miras_search.compiler.problem", lambda: "")
    words = ("plan", "sought.yaml", "--set", "seeds=[0, 1]", "--set")
    assert "4,000 steps a design and task" in cli(*words, "train.steps=2000").out
    assert "resources.kernels" not in cli(*words, "train.steps=1999").out


def test_a_search_is_run_in_pieces_and_every_reader_tells_how_it_stands(cli, search_file: Path) -> None:
    first = cli("run", "sought.yaml", *LOCAL, "--max-jobs", "2")
    assert first.code == 0, first.err
    assert "competitor, partly by luck: nothing is confirmed on fresh seeds yet" in first.out
    assert "not through yet: the same command goes on" in first.err
    assert cli("table", "sought").out == first.out, "a table of what is not confirmed would mislead"

    rest = cli("run", "sought.yaml", *LOCAL)
    assert rest.code == 0, rest.err
    assert "goes on" not in rest.err
    assert "of its best of 3 competitors" in rest.out and "shrinkage" in rest.out
    assert "Study sought, task mqar" in rest.out

    status = cli("status", "sought")
    assert "8 jobs of 4 cells: 8 complete" in status.out
    assert "1/3" in status.out and "compare the confirmed alone" in status.out
    report = cli("status", "sought", "--json").json["search"]
    assert report["competitors"] == 3 and len(report["rows"]) == 2
    best = report["rows"][0]
    assert best["shrinkage"] == pytest.approx(best["values"][0] - best["confirmed"])

    table = cli("table", "sought", "--json").json
    assert {row["cell"] for row in table["rows"]} == {row["cell"] for row in report["rows"]}
    assert {row["n"] for row in table["rows"]} == {2}
    shown = cli("show", "sought", str(best["number"]))
    assert f"trial {best['number']}: {best['cell']}" in shown.out
    assert shown.out.rstrip().endswith(f"--trial {best['number']}")

    again = cli("run", "sought.yaml", *LOCAL)
    assert "no training" in again.err and again.out == rest.out

    changed = cli("run", "sought.yaml", *LOCAL, "--set", "space.bias=[dot]")
    assert changed.code == 2 and "--as NAME" in changed.err

    before = quality(cli, best["number"])
    trained = cli("run", "sought.yaml", *LOCAL, "--trial", str(best["number"]))
    assert trained.code == 0, trained.err
    assert "3 trainings in " in trained.err, "one of the search, two on fresh seeds"
    assert quality(cli, best["number"]) == before
    assert cli("status", "sought", "--json").json["search"]["rows"] == report["rows"]


def quality(cli, trial: int) -> list[object]:
    """What the jobs of a trial found, without what depends on the machine's mood."""
    jobs = cli("show", "sought", str(trial), "--json").json["jobs"]
    return [[metric for metric in job["metrics"] if metric["name"] in ("accuracy", "loss")] for job in jobs]
