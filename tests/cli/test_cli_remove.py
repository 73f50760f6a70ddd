"""`db remove`: all that belongs to a study goes, nothing else does, and nobody loses one by a slip."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import optuna
import pytest
from sqlalchemy import text

from miras_search.analysis.numbers import bytes_text
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.writer import Writer

STUDY = """\
name: gone
question: Which?
task: {name: mqar, vocab: 16, length: 16, pairs: 2}
model: {layers: 1, d_model: 8, heads: 1}
train: {steps: 2, batch: 2, eval_examples: 4}
base: delta_net
vary: {bias: [dot]}
seeds: 2
"""
LOCAL = ("--executor", "local", "--workers", "1", "--quiet")
OURS = ("lock", "run", "trial", "job", "attempt", "metric_point", "final_metric", "artifact")


@pytest.fixture
def two(cli, here: Path) -> Path:
    """A database with a study and another one that is like it."""
    Path("gone.yaml").write_text(STUDY)
    assert cli("plan", "gone.yaml", "--lock").code == 0
    assert cli("run", "gone.yaml", *LOCAL).code == 0
    assert cli("run", "gone.yaml", "--as", "other", *LOCAL).code == 0
    return here


def counts() -> dict[str, int]:
    with Database.open("miras.db", read_only=True) as db, db.session() as session:
        return {name: session.scalar(text(f"SELECT count(*) FROM ms_{name}")) or 0 for name in OURS}


def files(study: str) -> list[Path]:
    return sorted(Path("checkpoints").glob(f"{study}/*"))


def test_a_study_goes_with_all_that_is_its_own(cli, two: Path) -> None:
    table = cli("table", "other").out
    whole = counts()
    assert len(files("gone")) == len(files("other")) == 4
    size = bytes_text(sum(file.stat().st_size for file in files("gone")))
    (two / "checkpoints" / "gone" / "mine.txt").write_text("somebody else's")
    result = cli("db", "remove", "gone", "--yes")
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith(f"gone removed with 4 jobs and 4 checkpoints ({size})\n")
    assert files("gone") == [Path("checkpoints/gone/mine.txt")]
    left = counts()
    assert left["lock"] == 0 and left["run"] == whole["run"] - 1
    assert all(left[name] < whole[name] for name in OURS)
    assert cli("table", "other").out == table
    assert "no study 'gone'" in cli("table", "gone").err
    names = optuna.study.get_all_study_names("sqlite:///miras.db")
    assert names == ["miras-search/other"]
    again = cli("run", "gone.yaml", *LOCAL)
    assert again.code == 0
    assert len(files("gone")) == 5


def test_it_asks_and_a_script_has_to_say_so(cli, two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    refused = cli("db", "remove", "gone")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("db remove gone: 4 jobs and 4 checkpoints (")
    assert refused.err.endswith(") would be lost: say --yes if that is meant\n")
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    declined = cli("db", "remove", "gone")
    assert (declined.code, declined.out.strip()) == (130, "")
    assert "Remove gone with 4 jobs and 4 checkpoints" in declined.err
    assert len(files("gone")) == 4
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    agreed = cli("db", "remove", "gone", "--json")
    assert agreed.code == 0
    assert agreed.json["checkpoints"] == 4
    assert not (two / "checkpoints" / "gone").exists()


def test_what_cannot_be_removed_is_one_line(cli, two: Path) -> None:
    unknown = cli("db", "remove", "gonne", "--yes")
    assert (unknown.code, unknown.err.count("\n")) == (2, 1)
    assert "did you mean 'gone'?" in unknown.err
    with Database.open("miras.db") as db:
        writer, study = Writer(db), queries.study(db, "gone")
        run = writer.begin_run(study.id, provenance={})
        busy = cli("db", "remove", "gone", "--yes")
        assert busy.code != 0
        assert "study 'gone' is being run by process" in busy.err
        assert len(files("gone")) == 4
        writer.end_run(run.id, "done")


def test_evaluations_go_first(cli, two: Path) -> None:
    assert cli("eval", "gone", "--as", "looked", *LOCAL).code == 0
    refused = cli("db", "remove", "gone", "--yes")
    assert (refused.code, refused.err) == (2, "gone: its models are evaluated in looked: remove looked first\n")
    assert len(files("gone")) == 4
    assert cli("db", "remove", "looked", "--yes").out.endswith("looked removed with 4 jobs and 0 checkpoints (0 B)\n")
    assert cli("db", "remove", "gone", "--yes").code == 0


def test_a_checkpoint_that_is_another_databases_stays(cli, two: Path) -> None:
    file = files("gone")[0]
    file.write_bytes(b"of a study of that name in another database here")
    assert "3 checkpoints" in cli("db", "remove", "gone", "--yes").out
    assert files("gone") == [file]
