"""`status`, `show`, `table` and `db` on a stored study, and the database that all verbs read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from miras_search.analysis.stored import stored_tables
from miras_search.commands.status import reasons
from miras_search.export.formats import RENDERERS
from miras_search.store.database import Database
from miras_search.store.failed import ErrorRow


def test_status_lists_the_studies(cli, stored: Path) -> None:
    header, row = cli("status").out.splitlines()
    counts = dict(zip(header.split(), row.split(), strict=False))
    assert counts["study"] == "small"
    assert (counts["jobs"], counts["complete"], counts["failed"], counts["waiting"]) == ("12", "9", "1", "1")
    assert cli("status", "--json").json["studies"][0]["jobs"]["diverged"] == 1


def test_status_of_one_study_shows_where_it_failed_and_the_time_left(cli, stored: Path) -> None:
    result = cli("status", "small")
    assert "12 jobs of 4 cells: 1 waiting, 9 complete, 1 diverged, 1 failed" in result.out
    assert "about 4.0 s left: " in result.out
    document = cli("status", "small", "--json").json
    levels = {level["level"]: (level["path"], level["diverged"], level["failed"]) for level in document["failures"]}
    assert levels == {"dot": ("bias", 1, 0), "value_shift": ("bias", 0, 1)}


def test_status_tells_why_jobs_failed(cli, stored: Path) -> None:
    assert cli("status", "small", "--json").json["errors"] == [
        {"error": "ValueError: too bad", "jobs": 1, "trial": 2, "cell": "value_shift"}
    ]
    out = cli("status", "small").out
    assert re.search(r"^why they failed\n  jobs +first +error\n +1  2 value_shift  ValueError: too bad\n", out, re.M)
    assert "in full: miras-search show small 2\n" in out


def test_status_tells_the_commonest_errors_first_and_counts_the_rest() -> None:
    rows = [ErrorRow(n, f"cell {n}", "mqar", 0, "OSError", f"Traceback\nOSError: {n % 4 and n}") for n in range(1, 13)]
    found = reasons(rows)
    assert [(one.error, one.jobs, one.trial) for one in found[:2]] == [("OSError: 0", 3, 4), ("OSError: 1", 1, 1)]
    assert len(found) == 10


def test_status_of_an_unknown_study_names_what_there_is(cli, stored: Path) -> None:
    result = cli("status", "smal")
    assert (result.code, result.out) == (2, "")
    assert "did you mean 'small'?" in result.err


@pytest.mark.parametrize("trial", ["1", "dot"])
def test_show_tells_the_design_the_metrics_and_how_to_train_it_again(cli, stored: Path, trial: str) -> None:
    result = cli("show", "small", trial)
    assert result.code == 0
    assert "small, trial 1: dot (cell), diverged" in result.out
    assert "bias = dot" in result.out
    assert "flops_per_token" in result.out and "36,096" in result.out
    assert "commit 0123456" in result.out
    assert result.out.endswith("train it again: miras-search run small.yaml --set train.steps=2 --as small --trial 1\n")


def test_show_has_the_error_of_a_failed_attempt(cli, stored: Path) -> None:
    assert "ValueError: too bad" in cli("show", "small", "2").out
    assert "ValueError: ValueError" not in cli("show", "small", "2").out


def test_show_json_spells_a_value_that_is_not_finite_as_null(cli, stored: Path) -> None:
    document = cli("show", "small", "1", "--json").json
    metrics = {(m["name"], m["split"]): m["value"] for m in document["jobs"][1]["metrics"]}
    assert document["jobs"][1]["state"] == "diverged"
    assert metrics["loss", "train"] is None
    assert document["trial"]["design"]["bias"] == {"dot": {}}
    assert document["equations"]["bias"]
    assert len(document["attempts"]) == 3


def test_show_keeps_the_database_in_the_command(cli, stored: Path) -> None:
    stored.rename("other.db")
    assert cli("show", "small", "0", "--db", "other.db").out.endswith("--db other.db --trial 0\n")


def test_show_of_an_unknown_trial_says_which_there_are(cli, stored: Path) -> None:
    result = cli("show", "small", "9")
    assert result.code == 2
    assert "0 to 3" in result.err


@pytest.mark.parametrize("form", sorted(RENDERERS))
def test_table_prints_what_the_renderers_make(cli, stored: Path, form: str) -> None:
    with Database.open(stored, read_only=True) as db:
        tables = stored_tables(db, "small")
    result = cli("table", "small", "--format", form)
    assert (result.code, result.err) == (0, "")
    assert result.out == RENDERERS[form](tables)


def test_table_json_has_the_promised_keys(cli, stored: Path) -> None:
    table = cli("table", "small", "--json").json
    assert list(table)[:5] == ["study", "metric", "base", "caption", "rows"]
    assert [row["cell"] for row in table["rows"]] == ["l2", "dot", "value_shift", "l2 + no_write"]
    assert "commit 0123456" in table["caption"].lower()
    dot = table["rows"][1]
    assert (dot["n"], dot["of"], dot["diverged"]) == (2, 3, 1)


def test_table_takes_its_format_from_the_ending_of_the_file(cli, stored: Path) -> None:
    result = cli("table", "small", "-o", "t.tex")
    assert (result.code, result.out) == (0, "")
    assert Path("t.tex").read_text() == cli("table", "small", "-f", "latex").out
    assert cli("table", "small", "-o", "t.txt", "-f", "csv").code == 0
    assert Path("t.txt").read_text().startswith("study,")


def test_table_against_another_cell_metric_and_split(cli, stored: Path) -> None:
    table = cli(
        "table", "small", "--against", "dot", "--metric", "loss", "--split", "train", "--task", "mqar", "--json"
    ).json
    assert (table["base"], table["metric"], table["split"]) == ("dot", "loss", "train")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--metric", "acuracy"), "did you mean 'accuracy'"),
        (("--against", "nobody"), "value_shift"),
        (("--task", "mqra"), "mqar"),
        (("--json", "--format", "csv"), "contradict"),
    ],
    ids=lambda words: words[0],
)
def test_table_refuses_what_is_not_there_and_says_what_is(cli, stored: Path, words: tuple[str, ...], said: str) -> None:
    result = cli("table", "small", *words)
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert result.err.count("\n") == 1


def test_a_table_that_cannot_be_written_is_a_problem_of_the_environment(cli, stored: Path) -> None:
    result = cli("table", "small", "-o", "nowhere/t.csv")
    assert result.code == 3
    assert result.err.startswith("nowhere/t.csv: cannot be written")


READERS = [
    ("status",),
    ("show", "small", "0"),
    ("table", "small"),
    ("export", "small", "-o", "out"),
    ("dashboard",),
    ("db", "upgrade"),
]


@pytest.mark.parametrize("verb", READERS, ids=lambda verb: " ".join(verb))
def test_a_missing_database_is_exit_3_and_nothing_is_made(cli, here: Path, verb: tuple[str, ...]) -> None:
    result = cli(*verb)
    assert (result.code, result.out) == (3, "")
    assert "no such database" in result.err
    assert list(here.iterdir()) == []


ALL = [*READERS, ("plan", "small.yaml"), ("run", "small.yaml"), ("doctor",), ("db", "backup", "copy.db")]


@pytest.mark.parametrize("verb", ALL, ids=lambda verb: " ".join(verb))
def test_a_password_in_the_arguments_is_refused_and_not_repeated(cli, study_file: Path, verb: tuple[str, ...]) -> None:
    result = cli(*verb, "--db", "postgresql://me:hunter2@localhost:1/studies")
    assert (result.code, result.out) == (2, "")
    assert "MIRAS_DB_URL" in result.err
    assert "hunter2" not in result.err


def test_the_flag_wins_over_the_environment_and_that_over_the_default(
    cli,
    stored: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MIRAS_DB_URL", str(stored.with_name("env.db")))
    assert "env.db: no such database" in cli("status").err
    assert cli("status", "--db", "miras.db").code == 0
    stored.rename("env.db")
    assert cli("status").code == 0


def test_db_upgrade_and_backup(cli, stored: Path) -> None:
    before = cli("db", "upgrade", "--json").json
    assert before["before"] == before["after"]
    copied = cli("db", "backup", "copy.db")
    assert copied.code == 0
    assert cli("table", "small", "--db", "copy.db").out == cli("table", "small").out
    again = cli("db", "backup", "copy.db")
    assert (again.code, again.out) == (3, "")
    assert "exists already" in again.err
    assert cli("db", "backup", "second.db", "--json").json["copy"].endswith("second.db")


def test_a_database_of_a_newer_version_is_refused(cli, stored: Path) -> None:
    from sqlalchemy import text

    with Database.open(stored) as db, db.writing() as session:
        session.execute(text("UPDATE ms_alembic_version SET version_num = '9999'"))
    result = cli("status")
    assert result.code == 3
    assert "newer miras-search" in result.err
    assert cli("doctor").code == 3


def test_table_in_layouts_of_a_format(cli, stored: Path) -> None:
    latex = cli("table", "small", "-f", "latex", "--siunitx", "--side-by-side")
    assert latex.code == 0
    assert "S[table-format" in latex.out
    page = cli("table", "small", "-o", "t.html", "--side-by-side")
    assert (page.code, page.out) == (0, "")
    assert Path("t.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    "words",
    [
        ("--siunitx", "-f", "html"),
        ("--side-by-side", "-f", "csv"),
        ("--side-by-side", "-f", "html", "--task", "mqar"),
    ],
)
def test_table_refuses_a_layout_that_the_format_has_not(cli, stored: Path, words: tuple[str, ...]) -> None:
    result = cli("table", "small", *words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(words[0])
    assert result.err.count("\n") == 1
