"""The engine on a server: our tables and Optuna's in one PostgreSQL schema, by the address with its password.

The other tests of the engine run there too, as `slow`: see `where` in conftest.
"""

from __future__ import annotations

import optuna
import pytest
from sqlalchemy import func, inspect, select

from miras_search.engine.removal import remove_study
from miras_search.store.tables import Artifact, Attempt, FinalMetric, Job, MetricPoint, Run, Study, Trial

OURS = (Study, Run, Trial, Job, Attempt, MetricPoint, FinalMetric, Artifact)


@pytest.mark.postgres
@pytest.mark.parametrize("where", ["postgres"], indirect=True)
def test_a_study_on_postgres(where: str, local) -> None:
    assert local("kill_once=0.dot", max_jobs=4).complete == 4
    assert local(overrides=("seeds=3",)).complete == 9
    assert {"ms_job", "trials"} <= set(inspect(local.db.engine).get_table_names())
    assert len(list((local.folder / "checkpoints/tiny").iterdir())) == 9
    storage = optuna.storages.RDBStorage(where)
    study = optuna.load_study(study_name="miras-search/tiny", storage=storage)
    assert [trial.state.name for trial in study.get_trials()] == ["COMPLETE"] * 3
    assert remove_study(local.db, "tiny").checkpoints == 9
    assert optuna.get_all_study_names(storage) == []
    with local.db.session() as session:
        assert [session.scalar(select(func.count()).select_from(table)) for table in OURS] == [0] * len(OURS)
    assert not (local.folder / "checkpoints/tiny").exists()
    storage.remove_session()
    storage.engine.dispose()
