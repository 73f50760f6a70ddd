"""The search's page: never a best without its competitors, and what the confirmation left of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from miras_search.analysis.search import headline, history, search_report
from miras_search.commands.search import text
from miras_search.dashboard.found import best_so_far, found_frame, shrinkage
from miras_search.dashboard.launch import APP, VARIABLE
from miras_search.dashboard.trade_off import front_frame, trade_off
from miras_search.export.palette import LIGHT
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import Final, NewJob, NewTrial
from miras_search.store.writer import Writer
from miras_search.study.loader import loads

SEARCH = """
name: sought
question: Which rate?
kind: search
task: {name: mqar, length: 32}
base: delta_net
space: {train.lr: {log_uniform: [1e-3, 3e-2]}}
trials: 4
confirm: {top: 2, seeds: 2}
"""
FOUND = (0.5, 0.4, 0.9, 0.7)  # by trial, the base first
FRESH = {0: (0.5, 0.52), 2: (0.6, 0.7), 3: (0.68, 0.7)}
Opened = Callable[[Path], Database]


def searched(folder: Path, *, confirmed: bool, objectives: str = "{accuracy: maximize}") -> Path:
    """A search of four trials whose best two, and the base, are trained on fresh seeds."""
    path, study = folder / "miras.db", loads(SEARCH, "sought.yaml", [f"objectives={objectives}"])
    assert study.search is not None
    with Database.open(path, create=True) as db:
        writer = Writer(db)
        id_ = writer.put_study(
            name=study.name, question=study.question, kind=study.kind, metric=study.metric, config_yaml=study.yaml,
            config=study.config, config_hash=study.config_hash, space_hash=study.space_hash,
        )  # fmt: skip
        run = writer.begin_run(id_, provenance={})

        def train(number: int, seed: int, accuracy: float) -> None:
            writer.put_jobs(id_, [NewJob(number, "mqar", seed)])
            (job,) = [job for job in queries.jobs(db, id_, number) if job.seed == seed]
            attempt = writer.start_attempt(job.id, run.id, host="ada", pid=1, device="cpu")
            finals = [Final("accuracy", "validation", accuracy), Final("accuracy", "test", accuracy - 0.01)]
            finals.append(Final("state_bytes", "", 100.0 * (4 - number)))
            writer.finish_attempt(
                attempt, state="complete", finals=finals, last_step=9, wall_seconds=1.0, peak_memory_bytes=1,
                final_for_job=True,
            )  # fmt: skip

        for number, accuracy in enumerate(FOUND):
            name = f"lr={number}e-3" if number else "delta_net"
            design = study.base.to_plain()
            trial = NewTrial(
                number, name, "cell" if number else "base", {"train.lr": str(number)} if number else {},
                design, {"train": {"steps": 9}}, study.base.hash,
            )  # fmt: skip
            writer.put_trials(id_, [trial])
            train(number, 0, accuracy)
        for number, values in FRESH.items() if confirmed else ():
            for seed, accuracy in zip(study.search.confirm_seeds, values, strict=True):
                train(number, seed, accuracy)
        writer.end_run(run.id, "done")
    return path


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(tmp_path_factory.mktemp("confirmed"), confirmed=True)


@pytest.fixture
def open_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], AppTest]]:
    def run(path: Path) -> AppTest:
        monkeypatch.setenv(VARIABLE, str(path))
        app = AppTest.from_file(str(APP), default_timeout=60)
        app.switch_page("views/found.py")
        return app.run()

    yield run
    st.cache_data.clear()
    st.cache_resource.clear()


def texts(app: AppTest) -> str:
    return "\n".join(str(item.value) for kind in (app.markdown, app.caption, app.info) for item in kind)


def test_the_best_so_far_climbs_over_the_trials_in_their_order(confirmed: Path, opened: Opened) -> None:
    db = opened(confirmed)
    study = queries.study(db, "sought")
    seen = history(db, study)
    assert [it.value for it in seen] == list(FOUND)
    assert [it.best for it in seen] == [0.5, 0.5, 0.9, 0.9]
    figure = best_so_far(seen, search_report(db, study), LIGHT)
    assert figure is not None
    line = figure.data[1]
    assert tuple(line.y) == (0.5, 0.5, 0.9, 0.9)
    assert "3 competitors" in line.name


def test_what_was_confirmed_stands_beside_what_was_found(confirmed: Path, opened: Opened) -> None:
    db = opened(confirmed)
    report = search_report(db, queries.study(db, "sought"))
    figure = shrinkage(report, LIGHT)
    assert figure is not None
    by_name = {trace.name: trace for trace in figure.data if trace.name}
    assert list(by_name["as the search saw it"].x) == [0.9, 0.7, 0.5]
    assert list(by_name["on fresh seeds, with one standard deviation"].x) == pytest.approx([0.65, 0.69, 0.51])
    frame = found_frame(report)
    assert list(frame["rank"]) == ["1 of 3", "2 of 3", "base"]
    assert list(frame["shrinkage"]) == pytest.approx([0.25, 0.01, -0.01])
    assert list(frame["fresh jobs"]) == ["2 of 2"] * 3


def test_the_page_tells_the_best_with_its_competitors_and_the_shrinkage(
    confirmed: Path, opened: Opened, open_found: Callable[[Path], AppTest]
) -> None:
    app = open_found(confirmed)
    assert not app.exception
    db = opened(confirmed)
    sentence = headline(search_report(db, queries.study(db, "sought")))
    assert sentence == (
        "the search saw validation accuracy 0.9 of its best of 3 competitors; on 2 fresh jobs it has 0.65 "
        "(shrinkage 0.25); compare the confirmed alone"
    )
    assert sentence in texts(app)
    assert [item.value for item in app.subheader] == ["Best so far", "Confirmed against found"]


def test_a_best_that_is_not_confirmed_is_called_lucky(
    tmp_path: Path, opened: Opened, open_found: Callable[[Path], AppTest]
) -> None:
    path = searched(tmp_path, confirmed=False)
    app = open_found(path)
    assert not app.exception
    assert "the best of 3 competitors, partly by luck" in texts(app)
    assert [item.value for item in app.subheader] == ["Best so far"]
    db = opened(path)
    assert shrinkage(search_report(db, queries.study(db, "sought")), LIGHT) is None


def test_a_front_is_a_line_among_all_trials_and_a_table(
    tmp_path: Path, opened: Opened, open_found: Callable[[Path], AppTest]
) -> None:
    path = searched(tmp_path, confirmed=True, objectives="{accuracy: maximize, state_bytes: minimize}")
    db = opened(path)
    study = queries.study(db, "sought")
    report = search_report(db, study)
    assert [(it.number, it.values) for it in report.front] == [(2, (0.9, 200.0)), (3, (0.7, 100.0))]
    figure = trade_off(history(db, study), report, LIGHT)
    assert figure is not None
    trials, line = figure.data
    assert (tuple(line.x), tuple(line.y)) == ((100.0, 200.0), (0.7, 0.9))
    assert len(trials.x) == 4 and "2 of 3 competitors" in line.name
    frame = front_frame(report)
    assert list(frame["state_bytes"]) == [200.0, 100.0]
    assert list(frame["confirmed"]) == pytest.approx([0.65, 0.69])
    lines = text(report).splitlines()
    assert "on the front: 2 of 3 competitors" in lines[1]
    assert [one.split()[0] for one in lines[3:6]] == ["trial", "2", "3"] and lines[4].split()[-2:] == ["0.9", "200"]
    app = open_found(path)
    assert not app.exception
    assert "On the front" in [item.value for item in app.subheader]


def test_an_ablation_says_that_nothing_was_searched(one_trial: Path, open_found: Callable[[Path], AppTest]) -> None:
    app = open_found(one_trial)
    assert not app.exception
    assert "is an ablation" in texts(app)
