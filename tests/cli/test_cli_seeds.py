"""`seeds` as a user drives it: a base trained crosswise, in parts, and its shares as text and as a document."""

from __future__ import annotations

import math
from pathlib import Path


def test_shares_of_a_base_come_from_one_crossed_study(cli, study_file: Path) -> None:
    words = ("seeds", "small.yaml", "--levels", "2", "--workers", "1", "--set", "metric=loss")
    first = cli(*words)
    assert first.code == 0, first.err
    assert "mqar: loss of l2, 2 x 2 x 2 trainings, mean" in first.out
    assert "init" in first.out and "init x data x eval" in first.out
    assert "8 jobs, 0 done" in first.err
    document = cli(*words, "--json").json  # trains nothing again
    (task,) = document["tasks"]
    assert (document["base"], document["metric"], document["levels"], task["task"]) == ("l2", "loss", 2, "mqar")
    assert math.isclose(sum(one["share"] for one in task["components"]), 1.0)
    assert {tuple(one["sources"]) for one in task["components"]} >= {("init",), ("data",), ("eval",)}
    assert [name.startswith("small.seeds-") for name in cli("status").out.split() if name.startswith("small")] == [True]


def test_a_search_has_no_base_to_cross(cli, here: Path) -> None:
    (here / "s.yaml").write_text("name: s\nkind: search\ntask: mqar\nbase: delta_net\nspace: {bias: any}\n")
    result = cli("seeds", "s.yaml")
    assert result.code == 2
    assert "s: a search has no base whose seeds matter: give an ablation" in result.err
