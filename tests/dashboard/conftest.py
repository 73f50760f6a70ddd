"""Databases as a user has them, written through the store's Writer from a study file that the loader reads."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from miras_search.engine.jobs import new_jobs, new_trials
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import Final, JobRow, Point
from miras_search.store.writer import Writer
from miras_search.study.loader import load

STUDY = """
name: {name}
question: Which attentional bias recalls best when the context is noisy?
kind: ablation
task: {task}
model: {{layers: 2, d_model: 32, heads: 2}}
train: {{steps: 300, eval_every: 50}}
base: delta_net
execution: {{chunk: 16, gradient: {{refined: 6}}}}
vary:
  bias: {levels}
controls: {controls}
seeds: {seeds}
metric: {metric}
"""
LEVELS = "[dot, {lp: {p: 1.5}}, {huber: {form: norm, delta: 0.5}}, value_shift]"
MEANS = (0.71, 0.52, 0.735, 0.82, 0.70, 0.13, 0.09)
DIVERGING = 4  # value_shift
START = datetime(2026, 3, 4, 9, 30, tzinfo=UTC)


class Clock:
    """Moves on a little with every look, so that rows have an order."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


class Maker:
    """Fills one database."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self.clock = Clock()

    def study(
        self,
        name: str = "bias",
        *,
        levels: str = LEVELS,
        controls: str = "[no_write, ascent]",
        seeds: int = 8,
        metric: str = "accuracy",
        task: str = "{name: noisy_recall, vocab: 48, length: 96, noise: 0.4}",
        done: int | None = None,
        failing: bool = False,
        alive: bool = False,
        diverging: bool = True,
    ) -> None:
        """A study whose first `done` jobs have ended (None: all); `alive` leaves two running under a live run."""
        file = self.folder / f"{name}.yaml"
        file.write_text(
            STUDY.format(name=name, levels=levels, controls=controls, seeds=seeds, metric=metric, task=task)
        )
        study = load(file)
        with Database.open(self.path, create=True) as db:
            writer = Writer(db, now=self.clock)
            if alive:
                self.clock.now = datetime.now(UTC) - timedelta(minutes=20)
            id_ = writer.put_study(
                name=name, question=study.question, kind=study.kind, metric=study.metric, config_yaml=study.yaml,
                config=study.config, config_hash=study.config_hash, space_hash=study.space_hash,
            )  # fmt: skip
            writer.put_trials(id_, new_trials(study))
            writer.put_jobs(id_, new_jobs(study))
            provenance = {
                "argv": ["miras-search", "run", f"{name}.yaml"],
                "versions": {"python": "3.11.2", "torch": "2.13.0"},
                "package": {"commit": "a1b2c3d4e5f60718293a4b5c6d7e8f9001122334", "dirty": None},
            }
            run = writer.begin_run(id_, provenance=provenance)
            jobs = [job for job in queries.jobs(db, id_) if job.state == "waiting"]
            for job in jobs[:done]:
                attempt = writer.start_attempt(job.id, run.id, host="ada", pid=4242, device="cpu")
                if failing:
                    self.fail(writer, attempt)
                else:
                    self.train(writer, attempt, job, diverging=diverging)
            if alive and done is not None:
                for job, step in zip(jobs[done : done + 2], (250, 50), strict=True):
                    attempt = writer.start_attempt(job.id, run.id, host="ada", pid=4243, device="cpu")
                    writer.add_points(attempt, [Point(step, "loss", "train", 1.5)])
                writer._now = lambda: datetime.now(UTC)
                writer.heartbeat(run.id)
            else:
                writer.end_run(run.id, "done" if done is None else "interrupted")

    def fail(self, writer: Writer, attempt: int) -> None:
        text = (
            'Traceback (most recent call last):\n  File "train.py", line 3\nRuntimeError: <b>no</b> kernel for *this*'
        )
        writer.finish_attempt(
            attempt, state="failed", finals=[], last_step=3, wall_seconds=1.5, peak_memory_bytes=None,
            error_type="RuntimeError", error_text=text, final_for_job=True,
        )  # fmt: skip

    def train(self, writer: Writer, attempt: int, job: JobRow, *, diverging: bool) -> None:
        """A training whose accuracy rises to its cell's mean; seeds shift all cells alike, so pairing pays."""
        noise = random.Random(f"{job.seed} {job.trial_number}")
        end = MEANS[job.trial_number] + 0.05 * math.sin(2.6 * job.seed) + noise.gauss(0.0, 0.012)
        diverges = diverging and job.trial_number == DIVERGING and job.seed % 3 == 1
        points = []
        for step in range(50, 301, 50):
            if diverges and step > 150:
                points.append(Point(step, "loss", "train", math.nan))
                break
            value = 0.02 + (end - 0.02) * (1.0 - math.exp(-step / 70.0)) / (1.0 - math.exp(-300 / 70.0))
            points.append(Point(step, "accuracy", "validation", value + noise.gauss(0.0, 0.008)))
            points.append(Point(step, "loss", "validation", 3.9 * (1.0 - value) + noise.gauss(0.0, 0.02)))
            points.append(Point(step, "loss", "train", 3.8 * (1.0 - value) + noise.gauss(0.0, 0.04)))
        writer.add_points(attempt, points)
        wall = 18.0 + 4.0 * job.trial_number + noise.random()
        finals = [
            Final("params", "", 20544.0 + 64 * (job.trial_number == 3)),
            Final("state_bytes", "", 4096.0),
            Final("peak_memory_bytes", "", 3.1e8 + 1e6 * job.trial_number),
            Final("wall_seconds", "", wall),
            Final("tokens_per_second", "", 51_000.0 - 5_200.0 * job.trial_number),
        ]
        if not diverges:
            finals += [
                Final("accuracy", "test", end),
                Final("accuracy", "validation", end + 0.004),
                Final("loss", "test", 3.9 * (1.0 - end)),
                Final("loss", "validation", 3.9 * (1.0 - end) - 0.01),
            ]
        self.clock.now += timedelta(seconds=wall)
        writer.finish_attempt(
            attempt,
            state="diverged" if diverges else "complete",
            finals=finals,
            last_step=150 if diverges else 300,
            wall_seconds=wall,
            peak_memory_bytes=310_000_000,
            final_for_job=True,
        )


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    """An empty database to fill."""
    return Maker(tmp_path / "miras.db", tmp_path)


Built = Callable[..., Path]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A database with the study that the keywords describe; the tests only read them, so each is built once."""

    def build(name: str, **study: object) -> Path:
        folder = tmp_path_factory.mktemp(name)
        made = Maker(folder / "miras.db", folder)
        made.study(**study)
        return made.path

    return build


@pytest.fixture(scope="session")
def normal(built: Built) -> Path:
    """A base, four cells and two controls on eight seeds, all ended; one cell diverges on three of the seeds."""
    return built("normal")


@pytest.fixture(scope="session")
def one_trial(built: Built) -> Path:
    """A base alone, on one seed."""
    return built("one_trial", levels="[l2]", controls="[]", seeds=1)


@pytest.fixture(scope="session")
def only_failures(built: Built) -> Path:
    return built("only_failures", failing=True, seeds=2)


@pytest.fixture(scope="session")
def in_progress(built: Built) -> Path:
    """Half of the jobs done, two running, a run whose heart beat when the database was built."""
    return built("in_progress", done=28, alive=True)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "miras.db"
    Database.open(path, create=True).close()
    return path


@pytest.fixture
def opened() -> Iterator[Callable[[Path], Database]]:
    """Open databases to read; they are closed at the end."""
    found: list[Database] = []

    def open_(path: Path) -> Database:
        found.append(Database.open(path, read_only=True))
        return found[-1]

    yield open_
    for db in found:
        db.close()
