"""The command line as a user drives it, in an empty folder, and a database with every kind of job in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from miras_search.cli import main
from miras_search.engine.jobs import new_jobs, new_trials, put_study
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import Final, Point
from miras_search.store.writer import Writer
from miras_search.study.loader import loads

STUDY = """\
name: small
question: Which bias?
task: {name: mqar, vocab: 16, length: 16, pairs: 2}
model: {layers: 1, d_model: 8, heads: 1}
train: {steps: 2, batch: 2, eval_examples: 4}
base: delta_net
execution: {chunk: 16, gradient: frozen}
vary: {bias: [dot, value_shift]}
controls: [no_write]
seeds: 3
"""
# by cell and seed; None: still waiting
STATES = {
    0: ("complete", "complete", "complete"),
    1: ("complete", "diverged", "complete"),
    2: ("complete", "complete", "failed"),
    3: ("complete", "complete", None),
}
PROVENANCE = {
    "argv": ["/bin/miras-search", "run", "--set", "train.steps=2", "small.yaml", "--workers", "2", "--as", "small"],
    "package": {"commit": "0123456789abcdef", "dirty": None},
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
}


@dataclass(frozen=True, slots=True)
class Result:
    """What one command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        def refuse(word: str) -> object:
            raise ValueError(f"{word} is no JSON")

        loaded = json.loads(self.out, parse_constant=refuse)
        assert isinstance(loaded, dict)
        return loaded


Cli = Callable[..., Result]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("MIRAS_DB_URL", "MIRAS_RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def cli(here: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*words: str) -> Result:
        capsys.readouterr()
        code = main(words)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def study_file(here: Path) -> Path:
    path = here / "small.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def stored(study_file: Path, database: Path) -> Path:
    """A `miras.db` of its own with the study in it."""
    return Path(shutil.copy(database, study_file.with_name("miras.db")))


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study with complete, diverged, failed and waiting jobs, and a value that is not finite; built once."""
    path = tmp_path_factory.mktemp("stored") / "miras.db"
    _record(path, STUDY)
    return path


Record = Callable[..., None]


@pytest.fixture
def record(here: Path) -> Record:
    """Store a study of the same cells in `miras.db` as if `first` of its jobs had run, their results with noise."""
    return lambda text, first=None: _record(here / "miras.db", text, first, noise=0.01)


def _record(path: Path, text: str, first: int | None = None, *, noise: float = 0.0) -> None:
    """Run what a study lacks, with the ends of jobs that `STATES` says, further seeds complete."""
    study = loads(text, "small.yaml")
    with Database.open(path, create=True) as db:
        writer = Writer(db)
        study_id = put_study(study, writer)
        run = writer.begin_run(study_id, provenance=PROVENANCE)
        writer.put_trials(study_id, new_trials(study))
        writer.put_jobs(study_id, new_jobs(study))
        for job in queries.jobs(db, study_id)[:first]:
            known = STATES.get(job.trial_number, ())
            state = known[job.seed] if job.seed < len(known) else "complete"
            if state is None or job.state != "waiting":
                continue
            attempt = writer.start_attempt(job.id, run.id, host="vm", pid=7, device="cpu")
            writer.add_points(attempt, [Point(1, "loss", "train", 2.0)])
            writer.finish_attempt(
                attempt,
                state=state,
                finals=_finals(state, job.trial_number, job.seed, noise),
                last_step=2,
                wall_seconds=4.0,
                peak_memory_bytes=1000,
                error_type="ValueError" if state == "failed" else None,
                error_text="Traceback\nValueError: too bad" if state == "failed" else None,
                final_for_job=True,
            )
        writer.end_run(run.id, "done")


def _finals(state: str, trial: int, seed: int, noise: float) -> Sequence[Final]:
    if state == "failed":
        return []
    costs = [Final("params", "", 100.0 + trial), Final("flops_per_token", "", 36096.0), Final("wall_seconds", "", 4.0)]
    if state == "diverged":
        return [*costs, Final("loss", "train", float("nan"))]
    value = 0.5 + 0.1 * trial + 0.01 * seed + noise * (seed * (trial + 1) % 3)
    return [*costs, Final("accuracy", "test", value), Final("loss", "train", 1.5)]
