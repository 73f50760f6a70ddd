"""A study of text goes on with the files that it was begun with, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from miras_search.engine.loop import JobLoop
from miras_search.store.types import JobRow

STUDY = """\
name: read
question: Which?
task: {name: text, corpus: books, length: 16, max_bytes: 4000}
model: {layers: 1, d_model: 8, heads: 1}
train: {steps: 2, batch: 2, eval_examples: 4}
base: delta_net
vary: {bias: [dot]}
seeds: 2
metric: loss
"""
LOCAL = ("--executor", "local", "--workers", "1", "--quiet")


def write(text: str) -> None:
    Path("books").mkdir(exist_ok=True)
    for number in range(30):
        (Path("books") / f"{number}.txt").write_text(f"{text} {number} " * 40)


@pytest.fixture
def begun(cli, here: Path) -> Path:
    """A folder with a study through."""
    (here / "read.yaml").write_text(STUDY)
    write("once upon a time")
    assert cli("run", "read.yaml", *LOCAL).code == 0
    return here


def test_other_files_are_another_study(cli, begun: Path) -> None:
    table = cli("table", "read").out
    write("in a galaxy far away")
    refused = cli("run", "read.yaml", "--set", "seeds=3", *LOCAL)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("read: task text: its files are not those that results are stored of (sha256 ")
    assert refused.err.count("\n") == 1
    assert cli("run", "read.yaml", "--trial", "1", *LOCAL).code == 2
    assert cli("table", "read").out == table
    assert cli("run", "read.yaml", *LOCAL).out == table, "what is through needs no files"
    assert cli("run", "read.yaml", "--as", "other", *LOCAL).code == 0
    write("once upon a time")
    assert cli("run", "read.yaml", "--set", "seeds=3", *LOCAL).code == 0
    assert ", files of text " in cli("show", "read", "0").out


def test_a_worker_that_sees_other_files_fails_and_says_so(cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "read.yaml").write_text(STUDY)
    write("once upon a time")
    begin = JobLoop.run

    def changed(loop: JobLoop, jobs: Sequence[JobRow]) -> None:
        write("in a galaxy far away")  # the driver has read; no worker has
        begin(loop, jobs)

    with monkeypatch.context() as patched:
        patched.setattr(JobLoop, "run", changed)
        assert cli("run", "read.yaml", *LOCAL).code != 0
    told = cli("status", "read").out
    assert "4 failed" in told
    assert "its files on " in told and " are not those that the run began with (sha256 " in told
    write("once upon a time")
    assert cli("run", "read.yaml", "--retry", "failed", *LOCAL).code == 0
    assert "4 complete" in cli("status", "read").out


def test_tasks_without_files_note_none(cli, begun: Path) -> None:
    (begun / "plain.yaml").write_text(
        STUDY.replace("name: text, corpus: books, length: 16, max_bytes: 4000", "name: mqar")
    )
    assert cli("run", "plain.yaml", "--as", "plain", *LOCAL).code == 0
    assert "corpora" not in cli("show", "plain", "0", "--json").json["runs"][0]["provenance"]
