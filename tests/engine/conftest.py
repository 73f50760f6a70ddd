"""A study of three cells on one task with fake trainings, on the local executor and on one Ray for all tests."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from miras_search.engine.driver import RunOptions, run_study
from miras_search.engine.events import Event, RunSummary
from miras_search.store import queries
from miras_search.store.address import parse_database
from miras_search.store.database import Database
from miras_search.store.types import AttemptRow
from miras_search.study.loader import Study, loads

HERE = Path(__file__).parent
SERVER = os.environ.get("MIRAS_TEST_POSTGRES_URL", "")
NO_SERVER = "MIRAS_TEST_POSTGRES_URL is not set"
# `make test` has a few tests of its own on a server; `make test-all` runs every one of them there too
ON_POSTGRES = [
    pytest.mark.postgres,
    pytest.mark.slow,
    *([] if SERVER else [pytest.mark.skip(reason=NO_SERVER)]),
]
TEXT = """\
name: tiny
task: {name: mqar, length: 32}
model: {layers: 1, d_model: 16, heads: 1}
train: {steps: 20, batch: 8, eval_examples: 16}
base: delta_net
vary: {bias: [dot, l2]}
controls: [no_write]
seeds: 2
"""


def study(*overrides: str) -> Study:
    """Three cells (l2, dot, l2 + no_write) x one task x two seeds = six jobs."""
    return loads(TEXT, "tiny.yaml", overrides)


@pytest.fixture
def tiny() -> Callable[..., Study]:
    """Makes the study, with overrides."""
    return study


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Local workers import what the driver can; those of Ray get PYTHONPATH when Ray starts."""
    monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture(scope="session")
def ray_running() -> Iterator[None]:
    """One Ray with two cores and two pretended GPUs for the session: the executor uses it and leaves it running."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    import ray

    import miras_search.engine.ray_  # noqa: F401 - sets Ray's environment

    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=2,  # so it says: nothing here uses them
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        object_store_memory=80 * 1024**2,
    )
    yield
    ray.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def server() -> Iterator[str]:
    """The address, with its password, of a schema of its own in a real PostgreSQL."""
    if not SERVER:
        pytest.skip(NO_SERVER)
    url, schema = parse_database(SERVER), f"engine_{uuid.uuid4().hex[:12]}"
    admin = create_engine(url)
    with admin.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    yield url.update_query_dict({"options": f"-csearch_path={schema}"}).render_as_string(hide_password=False)
    with admin.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    admin.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=ON_POSTGRES)])
def where(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty database. Checkpoints go to `tmp_path` in both cases."""
    if request.param == "postgres":
        monkeypatch.chdir(tmp_path)
        return str(request.getfixturevalue("server"))
    return str(tmp_path / "miras.db")


@pytest.fixture
def db(where: str) -> Iterator[Database]:
    with Database.open(where, create=True) as database:
        yield database


class Runner:
    """Runs the tiny study with fake trainings, and looks at what the database holds then."""

    def __init__(self, db: Database, folder: Path, executor: str) -> None:
        self.db, self.folder, self.executor = db, folder, executor
        self.events: list[Event] = []

    def __call__(
        self,
        behaviour: str = "",
        *,
        overrides: tuple[str, ...] = (),
        on_event: Callable[[Event], None] | None = None,
        **options: object,
    ) -> RunSummary:
        def listen(event: Event) -> None:
            self.events.append(event)
            if on_event is not None:
                on_event(event)

        values: dict[str, object] = {
            "executor": self.executor,
            "workers": 2,
            "entry": self.entry(behaviour),
            "grace": 0.5,
        }
        values |= options
        return run_study(study(*overrides), self.db, RunOptions(**values), listen)

    def entry(self, behaviour: str) -> str:
        return f"engine_entries:{behaviour}@{self.folder}"

    def told(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def calls(self) -> list[tuple[str, str]]:
        """(bias, seed) of every training begun, in order."""
        lines = (self.folder / "calls").read_text().splitlines()
        return [(line.split()[0], line.split()[1]) for line in lines]

    @property
    def study_id(self) -> int:
        return queries.study(self.db, "tiny").id

    def attempts(self, number: int, seed: int) -> list[AttemptRow]:
        return [row for row in queries.attempts(self.db, self.study_id, number) if row.seed == seed]

    def results(self) -> dict[tuple[str, int], tuple[str, dict[tuple[str, str], float]]]:
        return {(row.cell, row.seed): (row.state, row.values) for row in queries.results(self.db, self.study_id)}


@pytest.fixture(params=["local", "ray"])
def run(request: pytest.FixtureRequest, db: Database, tmp_path: Path) -> Runner:
    """A runner on each executor."""
    if request.param == "ray":
        request.getfixturevalue("ray_running")
    return Runner(db, tmp_path, request.param)


@pytest.fixture
def local(db: Database, tmp_path: Path) -> Runner:
    """A runner on the local executor."""
    return Runner(db, tmp_path, "local")


@pytest.fixture
def on_ray(ray_running: None, db: Database, tmp_path: Path) -> Runner:
    """A runner on Ray."""
    return Runner(db, tmp_path, "ray")
