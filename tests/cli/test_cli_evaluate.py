"""`eval` as a user drives it: levels, what is refused, what is continued, and the verbs that read what it stores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from compiling import NEEDS_COMPILER
from inline import InlineExecutor
from plugin_text import MODULE

from miras_search.cli import main
from miras_search.engine import driver
from miras_search.engine.evaluation import Wanted, evaluation
from miras_search.space import plugins
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.writer import Writer
from miras_search.training import compiled

STUDY = """\
name: small
task: {name: noisy_recall, vocab: 24, length: 24, noise: 0.25}
model: {layers: 1, d_model: 8, heads: 1}
train: {steps: 2, batch: 2, eval_examples: 8, inner_step: match_base}
base: delta_net
execution: {chunk: 16, gradient: frozen}
vary: {bias: [dot]}
controls: [no_write]
seeds: 2
"""
NOISE = ("--set", "task.noise=0.5")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study's trainings; made once."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(driver, "make_executor", lambda *words, **asked: InlineExecutor())
        (folder / "small.yaml").write_text(STUDY)
        assert main(("run", "small.yaml", "--quiet")) == 0
    return folder


@pytest.fixture(autouse=True)
def folder(here: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own with those trainings, where jobs run in this process."""
    shutil.copytree(trained, here, dirs_exist_ok=True)
    monkeypatch.setattr(driver, "make_executor", lambda *words, **asked: InlineExecutor())
    return here


def values(name: str) -> dict[tuple[str, str, int], dict[tuple[str, str], float]]:
    """What the jobs of a study found, by cell, task and seed."""
    with Database.open("miras.db", read_only=True) as db:
        rows = queries.results(db, queries.study(db, name).id)
        return {(row.cell, row.task, row.seed): row.values for row in rows}


def test_on_its_own_task_a_model_scores_what_its_training_scored(cli) -> None:
    result = cli("eval", "small", "--as", "own", "--set", "task.length=24")
    assert result.code == 0, result.err
    before, after = values("small"), values("own")
    assert len(after) == 6
    for (cell, _, seed), found in after.items():
        theirs = before[cell, "noisy_recall", seed]
        for key in (
            ("accuracy", "test"),
            ("loss", "test"),
            ("params", ""),
            ("state_bytes", ""),
            ("inner_step_scale", ""),
        ):
            assert found[key] == theirs[key]
        assert not {"tokens_per_second", "validation", "train"} & {part for key in found for part in key}


def test_each_level_has_a_table_with_the_seeds_of_the_training(cli) -> None:
    words = ("eval", "small", "--as", "noisy", *NOISE, "--set", "task.noise=0.75", "--set", "train.eval_examples=16")
    result = cli(*words)
    assert result.code == 0, result.err
    assert "noisy: 3 cells, 12 jobs, 0 done, 12 to evaluate; inline, 1 at once" in result.err
    assert "12 evaluations in " in result.err
    tables = cli("table", "noisy", "--json").json["tasks"]
    assert [one["rows"][1]["n"] for one in tables] == [2, 2]
    said = "Models as study small trained them on noisy_recall (vocab 24, length 24, noise 0.25"
    assert said in tables[0]["caption"] and "evaluated without more training" in tables[0]["caption"]
    assert [one["caption"].split(":")[0] for one in tables] == [
        f"Study noisy, task noisy_recall(noise={noise})" for noise in (0.5, 0.75)
    ]
    assert {row["role"] for row in tables[0]["rows"]} == {"base", "cell", "control"}

    again = cli(*words)
    assert again.out == result.out
    assert "12 done" in again.err and "no evaluation; stored in" in again.err


def test_settings_of_two_paths_meet_crosswise_and_another_task_keeps_what_it_shares(cli) -> None:
    words = ("--set", "task.length=32", "--set", "task.length=64", "--set", "task.pairs=2", "--set", "task.pairs=4")
    result = cli("eval", "small", "--task", "mqar", *words, "--cell", "dot", "--seeds", "1", "--json")
    assert result.code == 0, result.err
    summary = json.loads(result.out.splitlines()[-1])
    assert (summary["complete"], summary["attempts"]) == (8, 8)
    name = summary["study"]
    assert name.startswith("small.eval-")
    assert [one["rows"][1]["cell"] for one in summary["table"]["tasks"]] == ["dot"] * 4
    assert {seed for _, _, seed in values(name)} == {1}
    with Database.open("miras.db", read_only=True) as db:
        (spec, *_) = queries.study(db, name).config["tasks"]
    assert spec["name"] == "mqar(length=32, pairs=2)"
    assert spec["spec"] == {"name": "mqar", "vocab": 24, "length": 32, "pairs": 2, "power": 0.01, "filler": "random"}


def test_it_is_read_like_any_study(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("eval", "small", "--as", "noisy", *NOISE, "--quiet")
    monkeypatch.setattr("sys.argv", ["miras-search", *words])
    assert cli(*words).code == 0
    assert "6 jobs of 3 cells: 6 complete" in cli("status", "noisy").out
    assert "noisy " in cli("status").out
    shown = cli("show", "noisy", "dot")
    assert "evaluate it again: miras-search eval small" in shown.out
    words = shown.out.strip().splitlines()[-1].split("miras-search ")[1].split()
    assert words[-2:] == ["--trial", "1"]
    assert "2 evaluations in " in cli(*words).err


@pytest.mark.slow
def test_its_export_has_the_command_and_the_study_that_was_trained(cli, folder: Path) -> None:
    assert cli("eval", "small", "--as", "noisy", *NOISE, "--quiet").code == 0
    files = cli("export", "noisy", "-o", "out")
    assert files.code == 0, files.err
    text = (folder / "out" / "study.yaml").read_text()
    assert text.startswith("# Evaluated: miras-search eval small --set task.noise=0.5 --as noisy")
    assert text.endswith(STUDY)
    assert "evaluated without more training" in (folder / "out" / "report.html").read_text()


@pytest.mark.slow
def test_what_is_trained_again_is_evaluated_again_once_it_is_there(cli) -> None:
    words = ("eval", "small", "--as", "noisy", *NOISE, "--cell", "dot", "--seeds", "1")
    assert cli(*words, "--quiet").code == 0
    found = values("noisy")
    with Database.open("miras.db") as db:
        id_ = queries.study(db, "small").id
        Writer(db).reset_jobs(id_, [job.id for job in queries.jobs(db, id_) if job.cell == "dot" and job.seed == 1])
    assert "1 job left: the same command goes on, with those whose training is complete by then" in cli(*words).err
    assert values("noisy")["dot", "noisy_recall(noise=0.5)", 1] == {}
    assert cli("run", "small.yaml", "--quiet").code == 0
    assert "1 evaluation in " in cli(*words).err
    key = ("loss", "test")
    assert {job: one[key] for job, one in values("noisy").items()} == {job: one[key] for job, one in found.items()}


@pytest.mark.slow
def test_it_is_continued_and_more_seeds_of_the_training_are_more_seeds_here(cli) -> None:
    first = cli("eval", "small", "--as", "noisy", *NOISE, "--max-jobs", "2")
    assert "2 evaluations in " in first.err and "4 jobs left: the same command goes on" in first.err
    assert "4 evaluations in " in cli("eval", "small", "--as", "noisy", *NOISE).err
    assert cli("run", "small.yaml", "--set", "seeds=3", "--quiet").code == 0
    assert "3 evaluations in " in cli("eval", "small", "--as", "noisy", *NOISE).err


def test_a_training_that_diverged_is_a_diverged_evaluation(cli, folder: Path) -> None:
    study = STUDY.replace("vary: {bias: [dot]}", "vary: {train.lr: [1.0e+30]}")
    study = study.replace("controls: [no_write]\nseeds: 2", "seeds: 1").replace("name: small", "name: far")
    (folder / "far.yaml").write_text(study)
    assert cli("run", "far.yaml", "--quiet").code == 0
    result = cli("eval", "far", "--as", "on", "--set", "task.noise=0.5", "--json")
    assert result.code == 0, result.err
    summary = json.loads(result.out.splitlines()[-1])
    assert (summary["complete"], summary["diverged"], summary["attempts"]) == (1, 1, 1)
    assert summary["table"]["rows"][1]["diverged"] == 1
    assert "its training diverged" in cli("show", "on", "1").out


@pytest.mark.slow
def test_of_several_tasks_one_is_named(cli, folder: Path) -> None:
    two = "[{name: noisy_recall, vocab: 24, length: 24}, {name: mqar, vocab: 24, length: 32, pairs: 2}]"
    text = STUDY.replace("{name: noisy_recall, vocab: 24, length: 24, noise: 0.25}", two)
    (folder / "two.yaml").write_text(text.replace("name: small", "name: two").replace("seeds: 2", "seeds: 1"))
    assert cli("run", "two.yaml", "--quiet").code == 0
    refused = cli("eval", "two")
    assert (refused.code, refused.err) == (
        2,
        "two: it is trained on noisy_recall, mqar: say --trained-on which of them\n",
    )
    assert cli("eval", "two", "--trained-on", "mqar", "--as", "own", "--quiet").code == 0
    own, theirs = values("own")["dot", "mqar", 0], values("two")["dot", "mqar", 0]
    assert own["loss", "test"] == theirs["loss", "test"]


def means(cli, study: str) -> list[tuple[str, float, int]]:
    """Cell, mean and number of seeds of each row of its table."""
    return [(row["cell"], row["mean"], row["n"]) for row in cli("table", study, "--json").json["rows"]]


@pytest.mark.slow
def test_of_a_tuned_study_it_is_the_chosen_models(cli, folder: Path) -> None:
    text = STUDY.replace("controls: [no_write]", "tune: {train.lr: [1e-3, 3e-3, 1e-2, 3e-2], seeds: 1}")
    (folder / "tuned.yaml").write_text(text.replace("name: small", "name: tuned"))
    assert cli("run", "tuned.yaml", "--quiet").code == 0
    assert cli("eval", "tuned", "--as", "own", "--quiet").code == 0
    assert means(cli, "own") == means(cli, "tuned")


@pytest.mark.slow
def test_of_a_search_it_is_what_was_confirmed(cli, folder: Path) -> None:
    head = STUDY.split("vary:")[0].replace("name: small", "name: sought").replace(", inner_step: match_base", "")
    rest = "kind: search\nspace: {bias: [dot, l2, value_shift]}\nsampler: random\ntrials: 3\n"
    (folder / "sought.yaml").write_text(head + rest + "confirm: {top: 1, seeds: 2}\n")
    assert cli("run", "sought.yaml", "--quiet", "--max-jobs", "1").code == 0
    assert "sought: nothing is confirmed on fresh seeds yet" in cli("eval", "sought").err
    assert cli("run", "sought.yaml", "--quiet").code == 0
    assert cli("eval", "sought", "--as", "own", "--quiet").code == 0
    assert means(cli, "own") == means(cli, "sought")


@pytest.mark.slow
def test_the_caption_tells_of_seeds_that_were_added_for_what_was_seen(cli, folder: Path) -> None:
    assert cli("run", "small.yaml", "--set", "seeds=3", "--quiet").code == 0
    assert cli("eval", "small", "--as", "own", "--quiet").code == 0
    assert "and seed 2 was added after some" in cli("table", "own", "--json").json["caption"]
    looks = STUDY.replace("name: small", "name: topped").replace(
        "seeds: 2", "seeds: 6\ntop_up: {max_seeds: 7, looks: 2}"
    )
    (folder / "topped.yaml").write_text(looks)
    assert cli("run", "topped.yaml", "--quiet").code == 0
    assert cli("eval", "topped", "--as", "on", "--cell", "dot", "--quiet").code == 0
    said = "Seeds were added after looks at what topped had trained, which p here leaves out of account"
    assert said in cli("table", "on", "--json").json["caption"]


@pytest.mark.slow
def test_plugins_come_from_the_runs_that_used_them(cli, folder: Path) -> None:
    text = STUDY.replace("name: small", "name: mine\nplugins: [own_bias]").replace("bias: [dot]", "bias: [own]")
    (folder / "mine.yaml").write_text(text)
    (folder / "own_bias.py").write_text(MODULE)
    assert cli("run", "mine.yaml", "--quiet").code == 0
    (folder / "own_bias.py").unlink()
    plugins.use(())
    assert cli("eval", "mine", "--as", "same", "--quiet").code == 0
    plugins.use(())
    own, theirs = values("same"), values("mine")
    assert {job: one["loss", "test"] for job, one in own.items()} == {
        job: one["loss", "test"] for job, one in theirs.items()
    }


REFUSED = (
    ("--set task.noyse=0.5", "--set task.noyse=0.5: unknown setting (did you mean 'noise'?)"),
    ("--set task.noise=2", "--set task.noise=2: "),
    ("--set task.noise", "--set task.noise: expected PATH=VALUE"),
    ("--set task.noise=0.5 --set task.noise=0.5", "--set task.noise=0.5: it is given twice"),
    ("--set task.name=mqar", "--set task.name=mqar: another task is named by --task"),
    ("--set train.steps=9", "--set train.steps=9: an evaluation trains nothing, so it can set task.SETTING"),
    ("--set train.eval_examples=0", "--set train.eval_examples=0: 0 must be at least 1"),
    ("--set task.vocab=64", "--set task.vocab=64: it has 64 tokens and the model only 24"),
    ("--set task.vocab=22", "--set task.vocab=22: it has 22 tokens and the model predicts among 24"),
    ("--task text", "--task text: it has 256 tokens and the model only 24"),
    ("--task mqra", "--task mqra: there is no such task (did you mean 'mqar'?)"),
    ("--task mqar --set task.pairs=0", "--set task.pairs=0: 0 leaves nothing to tell apart"),
    ("--task mqar", "--task mqar, length as in training: 24 is too short for 8 pairs"),
    ("--cell dott", "--cell dott: small has no such cell: did you mean 'dot'?"),
    ("--seeds 7", "--seeds 7: small is trained with 0, 1"),
    ("--seeds one", "--seeds one: 'one' is no seed: write them as 0,1,2"),
    ("--trained-on mqar", "--trained-on mqar: small is trained on noisy_recall"),
    ("--as small", "--as small: so the trainings are called"),
    ("--as /x", "--as /x: '/x' is not a name"),
)


def test_what_does_not_fit_is_told_in_one_line_and_nothing_is_stored(cli) -> None:
    for words, told in REFUSED:
        result = cli("eval", "small", *words.split())
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(told) and len(result.err.splitlines()) == 1, result.err
    with Database.open("miras.db", read_only=True) as db:
        assert [row.name for row in queries.studies(db)] == ["small"]


def test_checkpoints_that_are_gone_or_changed_are_refused_with_the_way_to_get_them(cli, folder: Path) -> None:
    path = next((folder / "checkpoints" / "small").glob("001-*-s0-a1.safetensors"))
    kept = path.read_bytes()
    path.write_bytes(kept[:-1])
    changed = cli("eval", "small")
    assert changed.err.startswith("small: dot, noisy_recall, seed 0: ")
    assert "its checkpoint is not what was saved" in changed.err
    path.unlink()
    gone = cli("eval", "small")
    assert (gone.code, gone.out) == (2, "")
    assert "its checkpoint cannot be read (No such file or directory): `miras-search show small 1` has" in gone.err


@pytest.mark.slow
def test_a_checkpoint_that_is_gone_is_trained_again_and_others_do_not_need_it(cli, folder: Path) -> None:
    next((folder / "checkpoints" / "small").glob("001-*-s0-a1.safetensors")).unlink()
    assert cli("eval", "small", "--cell", "l2 + no_write", "--quiet").code == 0
    assert cli("run", "small.yaml", "--trial", "1", "--quiet").code == 0
    assert cli("eval", "small", "--cell", "dot", "--quiet").code == 0


def test_trainings_without_checkpoints_and_studies_without_trainings_are_refused(
    cli, folder: Path, database: Path
) -> None:
    shutil.copy(database, folder / "bare.db")
    result = cli("eval", "small", "--db", "bare.db")
    assert result.err.startswith(
        "small: l2, mqar, seed 0: its training saved no checkpoint: `miras-search show small 0`"
    )
    assert cli("run", "small.yaml", "--as", "none", "--max-jobs", "0", "--quiet").code == 0
    assert cli("eval", "none").err == "none: no such training is complete: `miras-search status none`\n"
    assert cli("eval", "small", "--as", "noisy", *NOISE, "--max-jobs", "0", "--quiet").code == 0
    assert cli("eval", "noisy").err == "noisy: it is an evaluation itself and trained nothing: evaluate small\n"
    assert not Path("other.db").exists() and cli("eval", "small", "--db", "other.db").code == 3
    assert not Path("other.db").exists()


@pytest.mark.slow
def test_a_plan_takes_no_evaluation_for_a_pilot(cli) -> None:
    assert cli("eval", "small", "--as", "own", "--quiet").code == 0
    plan = cli("plan", "small.yaml", "--as", "next", "--json").json
    assert [plan["timed"]["study"], plan["detectable"][0]["study"]] == ["small", "small"]


def test_what_is_asked_for_is_what_the_study_has(folder: Path) -> None:
    with Database.open("miras.db") as db:
        made = evaluation(db, Wanted("small", overrides=("task.noise=0.5",), cells=("2",), seeds=(1,)))
    assert made.evaluated is not None and made.evaluated.trials == (0, 2)
    assert [cell.number for cell in made.cells] == [0, 1]
    assert [cell.name for cell in made.cells] == ["l2", "l2 + no_write"]
    assert made.seeds == (1,)


@NEEDS_COMPILER
def test_models_of_a_compiled_study_are_evaluated_without_a_compiler(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_made", lambda *_: None)  # operators will do here
    assert cli("run", "small.yaml", "--set", "resources.kernels=compiled", "--as", "fast").code == 0
    monkeypatch.setenv("CXX", "no-such-compiler")
    again = cli("run", "small.yaml", "--set", "resources.kernels=compiled", "--as", "fast")
    assert "no C++ compiler" in again.err
    assert cli("eval", "fast", *NOISE).code == 0
