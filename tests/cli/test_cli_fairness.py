"""A tuned and matched study from file to table, as a user drives it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

import miras_search as ms

STUDY = """\
name: fair
task: {name: mqar, vocab: 16, length: 16, pairs: 2}
model: {layers: 1, d_model: 16, heads: 2, feed_forward: swiglu}
train: {steps: 2, batch: 2, eval_examples: 4}
base: delta_net
execution: {chunk: 16, gradient: frozen}
vary: {memory: [{mlp: {depth: 2}}]}
tune: {train.lr: [1e-3, 3e-3, 1e-2, 3e-2], seeds: 1}
match: params
seeds: 2
"""
RUN = ("run", "fair.yaml", "--executor", "local", "--workers", "1")


def test_a_study_is_planned_tuned_matched_and_tabulated(cli, here: Path) -> None:
    (here / "fair.yaml").write_text(STUDY)
    assert cli("check", "fair.yaml").out == "fair.yaml: ok (2 cells, 12 jobs)\n"
    plan = cli("plan", "fair.yaml", "--lock").out
    assert "12 = 2 cells x 1 task x 2 seeds + 8 to tune" in plan
    assert "train.lr of 0.001, 0.003, 0.01, 0.03: 8 jobs on 1 seed of their own, by validation" in plan
    assert "params, resized" in plan and "x 0.996 by model.feed_forward_ratio = 0.8125" in plan

    first = cli(*RUN, "--max-jobs", "3")
    assert first.code == 0 and first.out == "", first.err  # nothing to compare yet
    assert "fair: 2 cells, 12 jobs, 0 done, 3 to train" in first.err and "9 jobs left" in first.err
    assert "matrix / lr=0.001, mqar, seed 2000000: complete" in first.err
    assert "8 settings of the tuned cells" in cli("status", "fair").out

    last = cli(*RUN)
    assert last.code == 0, last.err
    assert "[12/12]" in last.err and "9 trainings" in last.err
    assert "train.lr is chosen for each row, the best of 4" in " ".join(last.out.split())
    assert "Cells are resized to the base's params, within 10%" in " ".join(last.out.split())
    document = cli("table", "fair", "--json").json
    assert f"Resized: {document['rows'][1]['cell']} (model.feed_forward_ratio = 0.8125)." in document["notes"]
    assert "Locked " in document["caption"] and "departs" not in document["caption"]  # its tuning's seeds are its own
    rows = document["rows"]
    assert [row["n"] for row in rows] == [2, 2]
    for row in rows:
        assert row["tuned"]["train.lr"] in row["tried"] and len(row["tried"]) == 4
        assert row["sensitivity"]["train.lr"] >= 0
    assert rows[0]["ratio"] is None and rows[1]["ratio"] == round(rows[1]["params"] / rows[0]["params"], 4)
    frame = ms.open("miras.db").study("fair").table()  # what `export` writes as data
    assert json.loads(frame["tuned"][1]) == rows[1]["tuned"] and str(frame["sign_depends"].dtype) == "boolean"
    assert cli("export", "fair", "-o", "out").code == 0  # a cell's curves are those of the setting that it took
    assert "<h3>Learning curves</h3>" in (here / "out" / "report.html").read_text()
    jobs = pd.read_csv(here / "out" / "data" / "jobs.csv")
    assert jobs.groupby("row").size().to_dict() == {row["cell"]: 2 for row in rows} and jobs["row"].isna().sum() == 8
    statistics = json.loads((here / "out" / "tables" / "statistics.json").read_text())
    assert statistics["statistics"][0]["cells"][0]["cell"] == rows[1]["cell"]
    for form in ("markdown", "latex", "csv"):
        assert cli("table", "fair", "--format", form).code == 0
    assert "x params" in cli("table", "fair", "--format", "markdown").out

    lines = [json.loads(line) for line in cli(*RUN, "--json").out.splitlines()]
    assert [line["event"] for line in lines] == ["study_started", "summary"]
    assert lines[-1]["table"] == document
