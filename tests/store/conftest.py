"""Every test of the store runs on SQLite, and on PostgreSQL where MIRAS_TEST_POSTGRES_URL names a database."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from miras_search.store.address import parse_database
from miras_search.store.database import Database
from miras_search.store.types import NewJob, NewTrial
from miras_search.store.writer import Writer


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


SERVER = os.environ.get("MIRAS_TEST_POSTGRES_URL", "")
NO_SERVER = "MIRAS_TEST_POSTGRES_URL is not set"
# a skip by mark, for pytest reports those once a file; a skip within the fixture would be a line for every test
ON_POSTGRES = [pytest.mark.postgres, *([] if SERVER else [pytest.mark.skip(reason=NO_SERVER)])]


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A schema of its own on the server, so that tests do not meet."""
    if not SERVER:
        pytest.skip(NO_SERVER)
    url = parse_database(SERVER)
    schema = f"test_{uuid.uuid4().hex[:12]}"
    admin = create_engine(url)
    with admin.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    yield url.update_query_dict({"options": f"-csearch_path={schema}"}).render_as_string(hide_password=False)
    with admin.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    admin.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=ON_POSTGRES)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return str(tmp_path / "miras.db")


@pytest.fixture
def db(where: str) -> Iterator[Database]:
    with Database.open(where, create=True) as database:
        yield database


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def writer(db: Database, clock: Clock) -> Writer:
    return Writer(db, now=clock)


PutStudy = Callable[..., int]


@pytest.fixture
def put_study(writer: Writer) -> PutStudy:
    """Store a study; keywords override the default configuration."""

    def put(**changes: object) -> int:
        config: dict[str, object] = {
            "name": "bias",
            "question": "Which bias?",
            "kind": "ablation",
            "metric": "accuracy",
            "config_yaml": "name: bias\n",
            "config": {"name": "bias", "seeds": [3, 1]},
            "config_hash": "c1",
            "space_hash": "s1",
        }
        return writer.put_study(**(config | changes))

    return put


def trial(number: int, **changes: object) -> NewTrial:
    values: dict[str, object] = {
        "number": number,
        "cell": "dot" if number == 0 else f"cell {number}",
        "role": "base" if number == 0 else "cell",
        "changes": {} if number == 0 else {"bias": f"level {number}", "algorithm": "gd"},
        "design": {"bias": {"lp": {"p": 1.5}}, "number": number},
        "settings": {"train": {"lr": 1e-2, "steps": 30}},
        "design_hash": f"d{number}",
    }
    return NewTrial(**(values | changes))


@pytest.fixture
def new_trial() -> Callable[..., NewTrial]:
    return trial


@pytest.fixture
def study_id(put_study: PutStudy, writer: Writer) -> int:
    """A study of a base and two cells, on one task, with the seeds 3 and 1: six waiting jobs."""
    id_ = put_study()
    writer.put_trials(id_, [trial(number) for number in range(3)])
    writer.put_jobs(id_, [NewJob(number, "recall", seed) for number in range(3) for seed in (3, 1)])
    return id_
