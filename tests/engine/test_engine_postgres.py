"""The engine on a server: our tables and Optuna's in one PostgreSQL schema, by the address with its password."""

from __future__ import annotations

import optuna
import pytest
from sqlalchemy import inspect

from miras_search.store.database import Database


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
