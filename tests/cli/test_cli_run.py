"""`run`: a study from file to table, its progress, and every way to end."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from compiling import NEEDS_COMPILER
from rich.console import Console

from miras_search.commands import progress
from miras_search.engine import driver, events, whole

OVERRIDES = ("--set", "seeds=2", "--set", "vary={}", "--executor", "local", "--workers", "1")


def test_a_study_runs_from_file_to_table_and_the_second_run_trains_nothing(cli, study_file: Path) -> None:
    first = cli("run", "small.yaml", *OVERRIDES)
    assert first.code == 0, first.err
    assert "small: 2 cells, 4 jobs, 0 done, 4 to train; local, 1 at once" in first.err
    assert "[4/4] " in first.err
    assert "4 trainings in " in first.err and f"stored in {study_file.with_name('miras.db')}" in first.err
    assert "Study small, task mqar" in first.out
    assert "delta_net + no_write" in first.out

    second = cli("run", "small.yaml", *OVERRIDES)
    assert second.code == 0
    assert second.out == first.out
    assert "4 done" in second.err and "no training; stored in" in second.err
    assert "[" not in second.err
    assert cli("table", "small").out == first.out

    quiet = cli("run", "small.yaml", *OVERRIDES, "--quiet")
    assert (quiet.code, quiet.err, quiet.out) == (0, "", first.out)

    lines = [json.loads(line) for line in cli("run", "small.yaml", *OVERRIDES, "--json").out.splitlines()]
    assert [line["event"] for line in lines] == ["study_started", "summary"]
    assert lines[-1]["skipped"] == 4
    assert lines[-1]["table"] == cli("table", "small", "--json").json


def test_another_study_under_the_same_name_is_refused(cli, stored: Path) -> None:
    result = cli("run", "small.yaml", "--set", "train.steps=3", "--executor", "local")
    assert (result.code, result.out) == (2, "")
    assert "--as" in result.err


def test_nothing_is_stored_for_an_invalid_study(cli, study_file: Path) -> None:
    result = cli("run", "small.yaml", "--set", "train.stps=3")
    assert result.code == 2
    assert result.err == "--set train.stps=3: unknown setting (did you mean 'steps'?)\n"
    result = cli("run", "small.yaml", "--trial", "99")
    assert (result.code, result.err) == (2, "trial: 99: small has trials 0 to 3\n")
    assert not Path("miras.db").exists()


def _summary(**changes: object) -> events.RunSummary:
    values: dict[str, object] = {
        "study": "small",
        "complete": 9,
        "diverged": 1,
        "failed": 0,
        "waiting": 0,
        "skipped": 0,
        "attempts": 12,
        "seconds": 60.0,
        "interrupted": False,
    }
    return events.RunSummary(**(values | changes))


@pytest.mark.parametrize(("changes", "code"), [({"diverged": 3}, 0), ({"failed": 2}, 1), ({"waiting": 2}, 0)])
def test_failed_jobs_are_exit_1_and_divergence_is_a_result(
    cli,
    stored: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, int],
    code: int,
) -> None:
    monkeypatch.setattr(whole, "run_study", lambda *_: _summary(**changes))
    result = cli("run", "small.yaml")
    assert result.code == code
    assert result.out == cli("table", "small").out
    assert ("--retry failed" in result.err) == ("failed" in changes)
    assert ("2 jobs left" in result.err) == ("waiting" in changes)
    failed = (
        "2 jobs failed: miras-search status small tells where and why; the same command with --retry failed tries again"
    )
    assert cli("run", "small.yaml", "--quiet").err == (f"{failed}\n" if "failed" in changes else "")


@pytest.mark.parametrize("more", ["", "--set resources.gpu_hours=3"])
def test_a_spent_budget_is_exit_4_with_the_table_and_the_command_that_goes_on(
    cli, stored: Path, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    monkeypatch.setattr(whole, "run_study", lambda *_: _summary(waiting=2, spent="1.5 GPU-hours are spent", more=more))
    result = cli("run", "small.yaml", "--executor", "local")
    assert result.code == 4
    assert result.out == cli("table", "small").out
    told = result.err.splitlines()
    assert told[-2] == "small: 1.5 GPU-hours are spent; all that was found is stored. Go on with:"
    assert told[-1].strip() == f"miras-search run small.yaml --executor local {more}".strip()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--set", "resources.gpus=1"), "resources.gpus: 1 a job, and this machine shows none"),
        (("--set", "resources.gpus=1.5"), "resources.gpus: 1.5: a fraction of one GPU, or whole GPUs"),
        (("--address", "127.0.0.1:1"), "ray: the cluster at '127.0.0.1:1' was not joined: Connection refused"),
    ],
)
def test_what_a_run_has_no_room_for_is_told_before_anything_is_stored(
    cli, here: Path, stored: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], message: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    fresh = cli("run", "small.yaml", "--db", "fresh.db", *more)
    assert fresh.code in (2, 3) and fresh.err.startswith(message)
    assert not (here / "fresh.db").exists()
    other = cli("run", "small.yaml", "--as", "other", *more)
    assert other.err.startswith(message)
    assert "other" not in cli("status").out
    assert cli("run", "small.yaml", "--max-jobs", "0", *more).out == cli("table", "small").out  # none is wanted


def test_the_flags_reach_the_engine(cli, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[driver.RunOptions] = []

    def run_study(study: object, db: object, options: driver.RunOptions, report: object) -> events.RunSummary:
        seen.append(options)
        return _summary()

    monkeypatch.setattr(whole, "run_study", run_study)
    monkeypatch.setenv("MIRAS_RAY_ADDRESS", "cluster:6379")
    flags = "--executor ray --workers 3 --max-jobs 5 --retry failed --trial 1 --takeover"
    assert cli("run", "small.yaml", *flags.split()).code == 0
    assert cli("run", "small.yaml", "--address", "auto").code == 0
    assert cli("run", "small.yaml", "--executor", "local").code == 0
    first = driver.RunOptions(
        executor="ray", workers=3, address="cluster:6379", max_jobs=5, retry_failed=True, trial=1, takeover=True
    )
    assert seen == [first, driver.RunOptions(address="auto"), driver.RunOptions(executor="local")]


def test_an_interrupt_is_exit_130_and_prints_the_command_that_resumes(here: Path, study_file: Path) -> None:
    words = ["run", "small.yaml", "--set", "train.steps=1000000", "--executor", "local", "--workers", "1"]
    environment = {key: value for key, value in os.environ.items() if key != "MIRAS_DB_URL"}
    with subprocess.Popen(
        [sys.executable, "-m", "miras_search.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=here,
        env=environment,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            said = b""
            deadline = time.monotonic() + 60
            while b"to train" not in said:  # from here on the engine takes the signals
                assert select.select([process.stderr], [], [], deadline - time.monotonic())[0], said
                said += os.read(process.stderr.fileno(), 4096)
            process.send_signal(signal.SIGINT)
            out, rest = process.communicate(timeout=30)
        finally:
            process.kill()
    told = (said + rest).decode()
    assert process.returncode == 130, told
    assert out == b""
    assert told.splitlines()[-1].strip() == f"miras-search {' '.join(words)}"
    assert "Traceback" not in told


STARTED = events.StudyStarted("small", 2, 4, 1, 3, "local", 1)
STEP = events.Progress("l[2]", "mqar", 0, 10, 20, {"validation/accuracy": 0.25, "train/loss": 1.0})
DONE = events.JobFinished("l[2]", "mqar", 0, "complete", {"test/accuracy": 0.75}, 2.0, None)
FAILED = events.JobFinished("l2", "mqar", 1, "failed", {}, None, "Traceback\nValueError: too bad\n")
LOST = events.AttemptLost("l2", "mqar", 1, 1, "lost", "its worker was killed")


def test_a_log_file_gets_one_plain_line_a_finished_job(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Lines("accuracy") as report:
        for event in (STARTED, STEP, DONE, LOST, FAILED):
            report(event)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "small: 2 cells, 4 jobs, 1 done, 3 to train; local, 1 at once",
        "[2/4] l[2], mqar, seed 0: complete, test accuracy 0.75, 2.0 s",
        "l2, mqar, seed 1: attempt 1 was lost and is made again: its worker was killed",
        "[3/4] l2, mqar, seed 1: failed: ValueError: too bad",
    ]


def test_a_terminal_gets_a_bar_for_the_study_and_one_for_each_running_job() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, record=True)
    live = progress.Live("accuracy", console)
    with live as report:
        for event in (STARTED, events.JobStarted("l[2]", "mqar", 0, 1), STEP):
            report(event)
        live.progress.refresh()
        study, job = live.progress.tasks
        assert (study.completed, study.total) == (1, 4)
        assert (job.description, job.completed, job.total) == ("  l[2], mqar, seed 0", 10, 20)
        assert job.fields["said"] == "validation accuracy 0.25"
        report(DONE)
        report(FAILED)
        (study,) = live.progress.tasks
        assert (study.completed, study.fields["said"]) == (3, "1 failed")
        shown = console.export_text()
    assert "l[2], mqar, seed 0" in shown
    assert "10/20 steps" in shown
    assert "failed: ValueError: too bad" in shown


@NEEDS_COMPILER
def test_a_study_that_is_compiled_finds_what_it_finds_as_operators(cli, study_file: Path) -> None:
    words = ("run", "small.yaml", "--set", "vary={}", "--set", "controls=[]", "--set", "seeds=2")
    words += ("--executor", "local", "--workers", "1")
    assert cli(*words).code == 0
    plain = cli("table", "small", "--json").json
    done = cli(*words, "--set", "resources.kernels=compiled", "--as", "fast")
    assert done.code == 0, done.err
    fast = cli("table", "fast", "--json").json
    assert [row["mean"] for row in fast["rows"]] == pytest.approx([row["mean"] for row in plain["rows"]], abs=1e-6)
    found = [one for job in cli("show", "fast", "0", "--json").json["jobs"] for one in job["metrics"]]
    shares = [one["value"] for one in found if one["name"] == "kernel_mismatch"]
    assert len(shares) == 2
    assert max(shares) < 1e-4


def test_without_a_compiler_nothing_is_stored(cli, study_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    result = cli("run", "small.yaml", "--set", "resources.kernels=compiled")
    assert (result.code, result.out) == (3, "")
    cure = "no C++ compiler 'no-such-compiler' on the PATH: install it, name another in CXX, or take auto"
    assert result.err == f"resources.kernels: compiled: {cure}\n"
    assert not study_file.with_name("miras.db").exists()
    said = cli("doctor").out
    assert "no C++ compiler 'no-such-compiler' on the PATH: `resources.kernels: compiled` is not to be had" in said
