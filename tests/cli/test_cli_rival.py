"""A search against its rival, as a user drives it: one command runs both and tells the difference, and goes on."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

import miras_search as ms
from miras_search.seeds import FIRST_CONFIRM_SEED

SEARCH = """\
name: sought
kind: search
task: {name: mqar, vocab: 16, length: 16, pairs: 2}
model: {layers: 1, d_model: 8, heads: 1}
train: {steps: 2, batch: 2, eval_examples: 4}
base: delta_net
space: {bias: [dot, l2], train.lr: {log_uniform: [1e-3, 3e-2]}}
sampler: qmc
rival: {sampler: random}
trials: 3
confirm: {top: 1, seeds: 2}
presets: false
schedule: {sync: 2}
"""
LOCAL = ("--executor", "local", "--workers", "1")


def attempts(cli, study: str) -> int:
    return sum(len(cli("show", study, str(trial), "--json").json["attempts"]) for trial in range(3))


def test_one_command_runs_a_search_and_its_rival_and_compares_what_they_put_first(cli, here: Path) -> None:
    Path("sought.yaml").write_text(SEARCH)
    assert "random, pruner none: as many jobs again, stored as sought.rival" in cli("plan", "sought.yaml").out
    first = cli("run", "sought.yaml", *LOCAL, "--max-jobs", "7")
    assert first.code == 0, first.err
    assert "against sought.rival" not in first.out, "nothing is left for the rival"

    told: list[str] = []
    ms.run("sought.yaml", executor="local", workers=1, on_event=lambda event: told.append(event.event))
    assert (told.count("study_started"), told.count("job_started")) == (2, 7), "the library goes on with the rival"
    rest = cli("run", "sought.yaml", *LOCAL)
    assert rest.code == 0, rest.err
    assert "sought against sought.rival: what each put first, on the same fresh seeds (test accuracy)" in rest.out
    assert "over 2 paired seeds, p = " in rest.out
    studies = {one["study"]: one["jobs"] for one in cli("status", "--json").json["studies"]}
    assert {name: jobs["complete"] for name, jobs in studies.items()} == {"sought": 7, "sought.rival": 7}

    told = cli("show", "sought.rival", "2").out  # which the file alone would not mean
    again = told.splitlines()[-1].removeprefix("train it again: ")
    assert again == "miras-search run STUDY.yaml --trial 2 --rival"  # of what Python trained it knows no file
    again = again.replace("STUDY", "sought")
    before = {name: attempts(cli, name) for name in studies}
    assert cli(*again.split()[1:], *LOCAL).code == 0
    assert attempts(cli, "sought") == before["sought"] and attempts(cli, "sought.rival") > before["sought.rival"]
    alone = ("--trial", "0", "--set", "rival={}")
    for words, said in (((), "goes with --trial N"), (alone, "sought has no rival")):
        refused = cli("run", "sought.yaml", "--rival", *words)
        assert refused.code == 2 and said in refused.err

    duel = cli("status", "sought", "--json").json["duel"]
    mine, theirs = duel["sides"]
    assert (mine["means"], theirs["means"]) == ("qmc, pruner none", "random, pruner none")
    assert duel["difference"] == pytest.approx(mine["mean"] - theirs["mean"])
    assert duel["ci_low"] <= duel["difference"] <= duel["ci_high"] and duel["pairs"] == 2
    told = rest.out[rest.out.index("sought against sought.rival") :]
    for reader in (cli("status", "sought"), cli("table", "sought")):
        assert told.strip() in reader.out

    again = cli("run", "sought.yaml", *LOCAL, "--json")
    lines = [json.loads(line) for line in again.out.splitlines()]
    assert [line["study"] for line in lines if line["event"] == "summary"] == ["sought.rival", "sought"]
    assert lines[-1]["duel"] == duel and not [line for line in lines if line["event"] == "job_started"]

    # a training of the rival's that ended with a value that is not finite has diverged: no interval and no p without it
    with contextlib.closing(sqlite3.connect("miras.db")) as db, db:
        gone = db.execute(
            "update ms_final_metric set value = null, flag = 'inf' where split = 'test'"
            " and name_id = (select id from ms_metric_name where name = 'accuracy') and job_id ="
            " (select max(ms_job.id) from ms_job join ms_trial on ms_trial.id = trial_id join ms_study on ms_study.id ="
            " study_id where ms_study.name = 'sought.rival' and seed >= ?)",
            (FIRST_CONFIRM_SEED,),
        )
        assert gone.rowcount == 1
    less = cli("status", "sought", "--json").json["duel"]
    assert [side["diverged"] for side in less["sides"]] == [0, 1]
    assert (less["pairs"], less["ci_low"], less["ci_high"], less["p"]) == (1, None, None, None)
    assert "sought.rival diverged in 1 training" in cli("status", "sought").out
