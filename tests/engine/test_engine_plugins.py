"""Plugins travel with the job: a worker has no file to look at, on any executor, and runs what the driver has read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from plugin_text import MODULE

from miras_search.engine.driver import RunOptions, run_study
from miras_search.engine.jobs import task_of
from miras_search.engine.messages import Failed, Finished, Message, Started
from miras_search.engine.task import run_task
from miras_search.space import plugins
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import JobRow
from miras_search.study.loader import Study, load

STUDY = """\
name: own
plugins: [own_bias]
task: {name: mqar, vocab: 16, length: 16, pairs: 2}
model: {layers: 1, d_model: 8, heads: 1}
train: {steps: 2, batch: 2, eval_examples: 4}
base: {bias: own}
execution: {chunk: 8, gradient: frozen}
seeds: 1
"""


@pytest.fixture
def own(tmp_path: Path) -> object:
    """Reads the study with a module's source; its file is gone when the study is there."""

    def read(source: str = MODULE) -> Study:
        (tmp_path / "own.yaml").write_text(STUDY)
        (tmp_path / "own_bias.py").write_text(source)
        study = load(tmp_path / "own.yaml")
        (tmp_path / "own_bias.py").unlink()
        return study

    yield read
    plugins.use(())


@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_workers_run_options_whose_file_they_do_not_have(
    own, executor: str, db: Database, request: pytest.FixtureRequest
) -> None:
    if executor == "ray":
        request.getfixturevalue("ray_running")
    study = own()
    events: list[object] = []
    summary = run_study(study, db, RunOptions(executor=executor, workers=1), events.append)
    found = queries.attempts(db, queries.study(db, "own").id, 0)
    assert summary.complete == 1, [attempt.error_text for attempt in found]
    assert found[0].pid > 0
    (run,) = queries.runs(db, queries.study(db, "own").id)
    assert run.provenance["plugins"] == {
        "own_bias": {"path": study.plugins[0].path, "hash": study.plugins[0].digest, "source": MODULE}
    }


def _attempt(study: Study) -> Finished | Failed:
    row = JobRow(id=1, trial_id=1, trial_number=0, cell="own", task="mqar", seed=0, state="waiting", attempts=0)
    sent: list[Message] = []

    def send(messages: Sequence[Message]) -> bool:
        sent.extend(messages)
        return False

    (ended,) = run_task(1, task_of(study, [row], "engine_plugins_entry:unused"), send)
    assert isinstance(sent[0], Started)
    return ended


def test_a_plugin_that_fails_in_a_worker_fails_the_job_at_its_line(own, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IS_DRIVER", "yes")
    study = own("import os\n" + MODULE + "\nassert os.environ.get('IS_DRIVER'), 'no such thing here'\n")
    plugins.use(())
    monkeypatch.setattr(plugins, "_LOADED", {})  # as in another process
    monkeypatch.delenv("IS_DRIVER")
    ended = _attempt(study)
    assert isinstance(ended, Failed)
    assert (ended.state, ended.error_type) == ("failed", "SpecError")
    assert "own_bias.py:16: AssertionError: no such thing here" in ended.error_text
    assert "assert os.environ.get('IS_DRIVER')" in ended.error_text  # the traceback shows the line, which no file has


def test_a_job_without_plugins_runs_without_those_of_the_job_before(own) -> None:
    own()
    assert "own" in plugins.AXES["bias"].options
    study = load("quickstart")
    assert "own" not in plugins.AXES["bias"].options
    assert study.plugins == ()
