"""`plan` as a user drives it: proofs of designs, what a pilot tells, and the lock that captions speak of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAIRS = "vary={memory: [matrix, mlp], bias: [l2, dot, kl], algorithm: [gd, newton]}"


def test_a_pairwise_plan_prints_its_proof_and_each_refused_pair(cli, study_file: Path) -> None:
    words = ("plan", "small.yaml", "--set", "design=pairwise", "--set", PAIRS)
    text, document = cli(*words).out, cli(*words, "--json").json
    assert "pairwise: 13 of 16 pairs of levels covered, 3 refused; the factorial has 12 combinations" in text
    refused = text.split("refused pairs\n")[1].split("\n\n")[0].splitlines()
    assert [line.split(":")[0] for line in refused] == [
        "  - memory=mlp with algorithm=newton",
        "  - bias=dot with algorithm=newton",
        "  - bias=kl with algorithm=newton",
    ]
    assert all(len(line.split(": ", 1)[1]) > 20 for line in refused)
    array = document["array"]
    assert (array["pairs"], array["covered"], len(array["refused"])) == (16, 13, 3)
    assert document["design"] == "pairwise"


def test_a_fractional_plan_states_its_resolution(cli, study_file: Path) -> None:
    axes = "vary={bias: [l2, dot], algorithm: [gd, momentum], retention: [none, l2]}"
    result = cli("plan", "small.yaml", "--set", "design=fractional", "--set", axes)
    assert "fractional: 4 of 8 combinations, resolution III: main effects are clear of each other and not" in result.out


def test_without_a_pilot_the_plan_says_what_it_needs(cli, study_file: Path) -> None:
    result = cli("plan", "small.yaml")
    assert "smallest difference  not known before a pilot: two seeds of this study" in result.out
    assert "none yet: --lock writes it down before the first training" in result.out
    assert cli("plan", "small.yaml", "--json").json["detectable"] == []


def test_compiled_steps_are_told_of_where_they_repay_their_compiling(
    cli, monkeypatch: pytest.MonkeyPatch, study_file: Path
) -> None:
    words = ("plan", "small.yaml", "--set", "seeds=[0, 1]", "--set")
    told = "kernels              operators one by one; --set resources.kernels=compiled may take"
    monkeypatch.setattr("miras_search.compiler.problem", lambda: "")
    assert told not in cli(*words, "train.steps=1999").out
    assert f"{told} half of the time or a third: 4,000 steps a design and task" in cli(*words, "train.steps=2000").out
    tasks = "task=[{name: mqar, vocab: 16, length: 16, pairs: 2}, {name: mqar, vocab: 16, length: 24, pairs: 2}]"
    two = cli(*words, "train.steps=1999", "--set", tasks).out
    assert "x 2 tasks x 2 seeds" in two and told not in two  # each task has a graph of its own
    for setting in ("kernels=torch", "kernels=compiled"):
        assert "operators one by one" not in cli(*words, "train.steps=2000", "--set", f"resources.{setting}").out
    monkeypatch.setattr("miras_search.compiler.problem", lambda: "no C++ compiler")
    assert "operators one by one" not in cli(*words, "train.steps=2000").out


def test_a_plan_tells_what_its_own_trainings_say(cli, record, study_file: Path) -> None:
    text = study_file.read_text().replace("seeds: 3", "seeds: 6")
    study_file.write_text(text)
    record(text)
    result, document = cli("plan", "small.yaml"), cli("plan", "small.yaml", "--json").json
    assert "from 22 jobs of this study" in result.out
    (seen,) = document["detectable"]
    assert (seen["task"], seen["study"], seen["cells"], seen["freedom"]) == ("mqar", "small", 2, 8)
    assert 0 < seen["sd"] < seen["difference"] < 3 * seen["sd"]
    assert seen["power_error"] == pytest.approx(0.039, abs=1e-3)
    told = f"{seen['difference']:.2g} of accuracy at 80 ± 4 % power (400 simulated studies of normal noise under the"
    assert f"smallest difference  {told} table's test; sd" in result.out
    assert "8 degrees of freedom from this study" in result.out
    assert "none: exploratory" in result.out


def test_another_study_of_the_same_shape_is_a_pilot(cli, record, study_file: Path) -> None:
    record(study_file.read_text())
    other = ("plan", "small.yaml", "--as", "other", "--set", "vary.bias=[kl]", "--set", "seeds=8")
    result = cli(*other)
    assert re.search(r"time +about .* for the rest, .*\(from 10 jobs of study small\)", result.out)
    assert "degrees of freedom from study small" in result.out
    longer = cli(*other, "--set", "train.steps=3")
    assert "not known before a first job has run" in longer.out
    assert "not known before a pilot" in longer.out


def test_budgets_are_told_with_the_ratio_once_it_is_measured(cli, record, study_file: Path) -> None:
    text = study_file.read_text().replace("value_shift", "{value_shift: {delta: data}}")
    study_file.write_text(text)
    unmatched = r"budgets are not matched: value_shift\(delta=data\)( \(1.02 x the parameters\))? has other parameters"
    before = re.search(unmatched, cli("plan", "small.yaml").out)
    assert before is not None
    assert before[1] is None
    record(text, 9)
    after = re.search(unmatched, cli("plan", "small.yaml").out)
    assert after is not None
    assert after[1] is not None


def test_a_lock_before_the_results_is_what_captions_name(cli, record, study_file: Path) -> None:
    locked = cli("plan", "small.yaml", "--lock", "--margin", "0.02")
    assert locked.code == 0, locked.err
    lock = cli("plan", "small.yaml", "--json").json["lock"]
    content = lock["content"]
    assert content["family"] == ["dot", "value_shift"]
    assert content["controls"] == ["l2 + no_write"]
    assert (content["metric"], content["split"], content["margin"]) == ("accuracy", "test", 0.02)
    assert content["seeds"] == [0, 1, 2]
    named = f"locked {lock['locked_at'][:10]}, {lock['hash'][:12]}"
    assert f"lock                 {named}\n" in locked.out

    record(study_file.read_text(), 4)
    caption = cli("table", "small", "--json").json["caption"]
    assert f"Locked {named.removeprefix('locked ')}. Commit" in caption
    statistics = cli("table", "small", "--statistics", "--json").json
    assert statistics["statistics"][0]["margin"] == 0.02


def test_the_locked_margin_is_what_more_seeds_are_counted_for(cli, record, study_file: Path) -> None:
    cli("plan", "small.yaml", "--set", "seeds=5", "--lock", "--margin", "0.002")
    record(study_file.read_text().replace("seeds: 3", "seeds: 5"), 20)
    said = " ".join(str(row["verdict"]) for row in cli("table", "small", "--json").json["rows"])
    assert "±0.002" in said and "±0.01" not in said, said


def test_a_table_that_departs_from_its_lock_says_where(cli, record, study_file: Path) -> None:
    cli("plan", "small.yaml", "--lock")
    record(study_file.read_text().replace("seeds: 3", "seeds: 5"), 4)
    departs = "but this departs from it: 2 seeds (3, 4) more than locked"
    assert f"{departs}. Commit" in cli("table", "small", "--json").json["caption"]
    words = ("--metric", "loss", "--split", "train", "--against", "dot", "--statistics", "--margin", "0.5")
    caption = cli("table", "small", *words, "--json").json["caption"]
    others = "loss (train) instead of accuracy (test); against dot instead of l2; margin 0.5 instead of none"
    assert f"{departs}; {others}. Commit" in caption
    assert departs in cli("plan", "small.yaml", "--set", "seeds=5").out


def test_fewer_seeds_than_locked_are_a_departure_too(cli, record, study_file: Path) -> None:
    cli("plan", "small.yaml", "--lock")
    record(study_file.read_text().replace("seeds: 3", "seeds: 2"), 4)
    assert "departs from it: seed 2 of the locked 3 left out" in cli("table", "small", "--json").json["caption"]


def test_a_plan_and_a_lock_name_the_declared_looks(cli, record, study_file: Path) -> None:
    declared = ("--set", "seeds=8", "--set", "top_up={max_seeds: 12, looks: 3, spending: late}")
    plan = cli("plan", "small.yaml", *declared, "--lock")
    assert plan.code == 0, plan.err
    looks = "looks at 8 seeds at 1.6 %, 10 seeds at 1.5 %, 12 seeds at 1.8 %; at most 12 jobs more"
    assert f"top-up               {looks} for the base and what is undecided; a look waits for trainings" in plan.out
    document = cli("plan", "small.yaml", *declared, "--json").json
    assert document["lock"]["content"]["top_up"]["looks"] == [8, 10, 12]
    assert (document["top_up"]["spending"], document["top_up"]["jobs"]) == ("late", 12)
    rule = ("--set", "seeds=8", "--set", "top_up={max_seeds: 12, failed: leave_out}")
    assert "what is undecided; trainings that failed are left out" in cli("plan", "small.yaml", *rule).out
    refused = cli("plan", "small.yaml", "--set", "top_up={}", "--set", "top_up.max_seeds=3")
    assert refused.code == 2
    assert "3 is no number of seeds: give 4 to 1000, more than the study's 3" in refused.err


def test_without_a_lock_a_caption_says_exploratory(cli, stored: Path) -> None:
    assert "Exploratory: nothing was locked before its results. " in cli("table", "small", "--json").json["caption"]


def test_a_lock_after_the_first_training_is_refused(cli, stored: Path) -> None:
    result = cli("plan", "small.yaml", "--lock")
    assert (result.code, result.out) == (2, "")
    assert "its trainings have begun, so a lock comes too late" in result.err
    assert "--as small-2" in result.err


def test_a_lock_may_change_until_the_first_training_and_be_repeated_after(cli, record, study_file: Path) -> None:
    hashes = [
        cli("plan", "small.yaml", "--lock", *words, "--json").json["lock"]["hash"]
        for words in ((), ("--margin", "0.1"), ("--set", "seeds=4"), ())
    ]
    assert len(set(hashes)) == 3
    assert hashes[0] == hashes[3]
    record(study_file.read_text(), 4)
    assert cli("plan", "small.yaml", "--lock").code == 0
    assert cli("plan", "small.yaml", "--lock", "--margin", "0.1").code == 2


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--margin", "0.1"), "--margin 0.1: it belongs to --lock"),
        (("--lock", "--margin", "-1"), "--margin -1: a margin is positive"),
        (("--lock", "--set", "vary={}"), "small: there is nothing to compare with the base"),
    ],
)
def test_what_cannot_be_locked_is_told_before_there_is_a_database(
    words: tuple[str, ...], what: str, cli, study_file: Path
) -> None:
    result = cli("plan", "small.yaml", *words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(what)
    assert not Path("miras.db").exists()


def test_the_neighbours_of_a_trial_are_a_study(cli, stored: Path) -> None:
    from miras_search.space.design import AXES
    from miras_search.study.loader import load

    result = cli("show", "small", "dot", "--neighbours", "bias", "--neighbours", "algorithm")
    assert (result.code, result.err) == (0, "")
    Path("around.yaml").write_text(result.out)
    study, original = load("around.yaml"), load("small.yaml")
    assert study.base.hash == original.cells[1].design.hash
    assert (study.model, study.train, study.tasks) == (original.model, original.train, original.tasks)
    assert [list(cell.changes) for cell in study.cells[1:]] == [
        [axis.path] for axis in study.axes for level in axis.levels if level != axis.base
    ]
    for axis in ("bias", "algorithm"):  # every other option is a cell, or refused with its rule
        names = {getattr(cell.design, axis).name for cell in study.cells}
        refused = set(re.findall(rf"# refused: {axis}=(\w+): .{{20}}", result.out))
        assert names | refused == set(AXES[axis].options)
    assert "newton" in refused


def test_an_axis_that_there_is_not_has_no_neighbours(cli, stored: Path) -> None:
    result = cli("show", "small", "0", "--neighbours", "biases")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("neighbours: unknown axis 'biases' (did you mean 'bias'?)")
