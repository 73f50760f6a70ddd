"""The engine on a server: our tables and Optuna's in one PostgreSQL schema, by the address with its password."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import optuna
import pytest
from sqlalchemy import create_engine, inspect, text

from miras_search.store.address import parse_database
from miras_search.store.database import Database


@pytest.fixture
def server() -> Iterator[str]:
    where = os.environ.get("MIRAS_TEST_POSTGRES_URL")
    if not where:
        pytest.skip("MIRAS_TEST_POSTGRES_URL is not set")
    url, schema = parse_database(where), f"engine_{uuid.uuid4().hex[:12]}"
    admin = create_engine(url)
    with admin.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    yield url.update_query_dict({"options": f"-csearch_path={schema}"}).render_as_string(hide_password=False)
    with admin.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    admin.dispose()


@pytest.mark.postgres
def test_a_study_on_postgres(server: str, local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(local.folder)
    with Database.open(server, create=True) as db:
        local.db = db
        assert local("kill_once=0.dot", max_jobs=4).complete == 4
        assert local(overrides=("seeds=3",)).complete == 9
        assert {"ms_job", "trials"} <= set(inspect(db.engine).get_table_names())
    assert len(list((local.folder / "checkpoints/tiny").iterdir())) == 9
    storage = optuna.storages.RDBStorage(server)
    study = optuna.load_study(study_name="miras-search/tiny", storage=storage)
    assert [trial.state.name for trial in study.get_trials()] == ["COMPLETE"] * 3
    storage.remove_session()
    storage.engine.dispose()
