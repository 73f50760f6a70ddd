"""Every page on every kind of database, run by Streamlit without a browser."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
import streamlit as st
from sqlalchemy import select
from streamlit.delta_generator import DeltaGenerator
from streamlit.testing.v1 import AppTest

import miras_search as ms
from miras_search.analysis.stored import stored_tables
from miras_search.dashboard.launch import APP, VARIABLE
from miras_search.export.formats import RENDERERS
from miras_search.export.report import findings, to_report
from miras_search.store import queries, tables
from miras_search.store.database import Database
from miras_search.store.writer import Writer

PAGES = ("overview", "ablation", "found", "curves", "trials", "trial")
Open = Callable[..., AppTest]


class Maker(Protocol):
    path: Path

    def study(self, name: str = ..., **settings: object) -> None: ...


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Run one page on a database, with query parameters."""
    logging.getLogger("streamlit").setLevel(logging.ERROR)  # it misses its server in a test

    def run(path: Path | str, page: str = "overview", **query: str) -> AppTest:
        monkeypatch.setenv(VARIABLE, str(path))
        app = AppTest.from_file(str(APP), default_timeout=60)
        for key, value in query.items():
            app.query_params[key] = value
        app.switch_page(f"views/{page}.py")
        return app.run()

    yield run
    st.cache_data.clear()
    st.cache_resource.clear()


def words(app: AppTest) -> str:
    """All text of a page, without its tables."""
    kinds = (app.title, app.subheader, app.caption, app.markdown, app.info, app.warning, app.error, app.code)
    return "\n".join(str(item.value) for kind in kinds for item in kind)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("database", ["empty", "one_trial", "only_failures", "normal", "in_progress"])
def test_every_page_on_every_database(
    request: pytest.FixtureRequest, open_page: Open, database: str, page: str
) -> None:
    app = open_page(request.getfixturevalue(database), page)
    assert not app.exception
    text = words(app)
    if database == "empty":
        assert "No study yet" in text
        assert "miras-search run quickstart" in text
    else:
        assert "study **bias**" in text  # the strip
        assert "commit a1b2c3d" in text
        assert "jobs ended" in text


@pytest.mark.parametrize("page", PAGES)
def test_a_database_that_is_not_there_is_one_line(open_page: Open, tmp_path: Path, page: str) -> None:
    app = open_page(tmp_path / "none.db", page)
    assert not app.exception
    (error,) = app.error
    assert error.value.endswith("none.db: no such database: create it with `miras-search run STUDY.yaml`")


def test_a_password_is_never_shown(open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")
    app = open_page("postgresql://ada:s3cret@127.0.0.1:1/miras")
    assert len(app.error) == 1
    assert "s3cret" not in words(app)


def test_the_address_chooses_the_study(maker: Maker, open_page: Open) -> None:
    for name in ("first", "second"):
        maker.study(name, levels="[l2, dot]", controls="[]", seeds=2)
    path = maker.path
    assert open_page(path, study="first").title[0].value == "first"
    assert open_page(path).title[0].value == "second"  # the newest
    assert open_page(path, study="unheard of").title[0].value == "second"


def test_the_overview_tells_the_state(in_progress: Path, open_page: Open) -> None:
    with Database.open(in_progress) as db:
        run = queries.runs(db, queries.study(db, "bias").id)[-1]
        Writer(db).heartbeat(run.id)
    app = open_page(in_progress)
    tiles = {tile.label: tile.value for tile in app.metric}
    assert tiles["Jobs ended"] == "28 of 56"
    assert tiles["State"] == "running"
    assert tiles["Time left"].startswith("≈ ")
    assert "median of the 27 that completed), 2 at a time" in words(app)
    assert [list(frame.value["step"]) for frame in app.dataframe if "step" in frame.value] == [
        ["250 of 300", "50 of 300"]
    ]


def test_the_overview_lists_failures(only_failures: Path, open_page: Open) -> None:
    app = open_page(only_failures)
    assert "Failures" in [item.value for item in app.subheader]
    assert any("RuntimeError" in str(frame.value.get("error")) for frame in app.dataframe)
    assert "`--retry failed` tries the rest" in words(app)


def test_what_was_only_interrupted_is_no_failure(maker: Maker, open_page: Open) -> None:
    maker.study(done=3, alive=True)
    with Database.open(maker.path) as db:
        study, writer = queries.study(db, "bias"), Writer(db)
        for row in queries.attempts(db, study.id):
            if row.state == "running":
                writer.finish_attempt(row.id, state="lost", finals=[], last_step=50, wall_seconds=1.0,
                                      peak_memory_bytes=None, error_type="Lost", error_text="stopped by a signal",
                                      final_for_job=False)  # fmt: skip
    app = open_page(maker.path)
    assert "Interrupted" in [item.value for item in app.subheader]
    assert "A lost one is made again when the study goes on." in words(app)
    assert "--retry" not in words(app)


@pytest.mark.parametrize(
    "query", [{}, {"metric": "loss"}, {"against": "dot"}, {"split": "validation"}, {"metric": "tokens_per_second"}]
)
def test_the_downloads_are_what_the_command_line_prints(
    normal: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch, query: dict[str, str]
) -> None:
    offered: dict[str, str] = {}

    def record(self: DeltaGenerator, label: str, data: str, **options: object) -> bool:
        offered[label] = data
        return False

    monkeypatch.setattr(DeltaGenerator, "download_button", record)
    app = open_page(normal, "ablation", **query)
    assert not app.exception
    with Database.open(normal, read_only=True) as db:
        tables = stored_tables(db, "bias", **query)
    assert offered == {
        "Markdown": RENDERERS["markdown"](tables),
        "LaTeX": RENDERERS["latex"](tables),
        "HTML": RENDERERS["html"](tables),
        "CSV": RENDERERS["csv"](tables),
        "JSON": RENDERERS["json"](tables),
    }
    options = "".join(f" --{key} {value}" for key, value in query.items())
    assert f"`miras-search table bias{options} --format" in words(app)


def test_each_task_has_a_table_and_a_file_can_hold_all(
    maker: Maker, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = "[{name: noisy_recall, vocab: 48, length: 96}, {name: mqar, pairs: 4}]"
    maker.study(task=tasks, levels="[l2, dot]", controls="[]", seeds=3)
    offered: dict[str, str] = {}
    monkeypatch.setattr(DeltaGenerator, "download_button", lambda self, label, data, **_: offered.update({label: data}))
    app = open_page(maker.path, "ablation", task="mqar")
    with Database.open(maker.path, read_only=True) as db:
        assert offered["JSON"] == RENDERERS["json"](stored_tables(db, "bias", task="mqar"))
        app.radio(key="which").set_value("all tasks").run()
        assert not app.exception
        assert offered["JSON"] == RENDERERS["json"](stored_tables(db, "bias"))
    for page in PAGES:
        assert not open_page(maker.path, page, task="mqar").exception
    assert "**mqar** (accuracy)" in words(open_page(maker.path))


def test_the_ablation_page_speaks_of_what_went_wrong(normal: Path, open_page: Open) -> None:
    app = open_page(normal, "ablation")
    text = words(app)
    assert "2 decidedly better, 1 decidedly worse, 1 diverged" in text
    assert "diverged in 3 of 8 seeds, so no test and no mark" in text
    html = "".join(str(item.proto.body) for item in app.get("html"))
    assert "value_shift: diverged in 3 of 8; difference -0.249" in html


def test_a_metric_that_only_some_jobs_have_says_so(only_failures: Path, open_page: Open) -> None:
    app = open_page(only_failures, "ablation", metric="params")
    assert not app.exception
    assert "forest plot appears as soon as" in words(app)


def test_curves_say_what_line_and_band_are(normal: Path, open_page: Open) -> None:
    app = open_page(normal, "curves", line="mean", metric="loss", split="train")
    assert not app.exception
    assert "6 of 7 cells are drawn: at first the base and the best on validation." in words(app)
    assert "mean of the seeds; the band is one standard deviation" in words(app)
    assert app.selectbox(key="split").value == "train"
    app.multiselect[0].set_value([]).run()
    assert "Choose at least one cell." in words(app)
    app.multiselect[0].set_value(["l2"]).run()
    app.toggle[0].set_value(True).run()
    assert not app.exception
    assert "1 of 7 cells are drawn." in words(app)
    assert "without binding" not in words(app)
    held_out = open_page(normal, "curves", metric="accuracy", split="validation")
    assert "What can be had without binding needs no memory of keys." in words(held_out)


def test_curves_of_a_tuned_study_are_those_of_its_rows(tmp_path: Path, open_page: Open) -> None:
    study = {
        "name": "tuned",
        "task": {"name": "mqar", "vocab": 16, "length": 16, "pairs": 2},
        "model": {"layers": 1, "d_model": 8, "heads": 1},
        "train": {"steps": 2, "batch": 2, "eval_every": 1, "eval_examples": 4},
        "base": "delta_net",
        "vary": {"bias": ["dot"]},
        "tune": {"model.conv": [0, 4], "seeds": 1},
        "seeds": 2,
    }
    path = tmp_path / "tuned.db"
    ms.run(study, db=path, executor="local", workers=1)
    app = open_page(path, "curves")
    assert not app.exception
    assert app.multiselect[0].options == ["l2", "dot"]
    assert "; n = 2." in words(app).replace("Line: ", "; ")
    app.toggle[1].set_value(True).run()
    assert not app.exception
    assert app.multiselect[0].options == [f"{cell} / conv={conv}" for cell in ("l2", "dot") for conv in (0, 4)]


def test_a_tuned_study_that_waits_for_failed_trainings_is_held(
    only_failures: Path, tmp_path: Path, open_page: Open
) -> None:
    path = tmp_path / "held.db"
    shutil.copy(only_failures, path)
    states = {}
    for tune in ({"values": {"train.lr": ["0.1"]}, "seeds": [0, 1]}, None):  # all that there is tunes; nothing does
        with Database.open(path) as database, database.writing() as session:
            study = session.execute(select(tables.Study)).scalar_one()
            study.config = {**study.config, "tune": tune}
        st.cache_data.clear()
        app = open_page(path)
        assert not app.exception
        states[app.metric[1].value] = "Trainings of the tuning failed" in words(app)
    assert states == {"held": True, "ended": False}


def test_trials_are_filtered(normal: Path, open_page: Open) -> None:
    app = open_page(normal, "trials")
    app.text_input(key="filter").set_value("huber").run()
    assert list(app.dataframe[0].value["cell"]) == ["huber(delta=0.5)"]
    assert "1 of 7 trials." in words(app)
    app.text_input(key="filter").set_value("no such cell").run()
    assert not app.exception
    assert "0 of 7 trials." in words(app)


def test_a_trials_page_has_design_errors_and_the_command(only_failures: Path, open_page: Open) -> None:
    app = open_page(only_failures, "trial", trial="3")
    assert app.title[0].value == "huber(delta=0.5)"
    codes = [item.value for item in app.code]
    assert "miras-search run bias.yaml --trial 3" in codes
    assert "miras-search show bias 3" in codes
    assert any("RuntimeError: <b>no</b> kernel" in code for code in codes)
    html = "".join(str(item.proto.body) for item in app.get("html"))
    assert "norm: u = r min(1, d/|r|)" in html


def test_an_address_that_names_what_is_not_here_is_told(only_failures: Path, open_page: Open) -> None:
    app = open_page(only_failures, "trial", trial="77")
    assert [item.value for item in app.warning] == ["The trial that the address asks for is not here; this is another."]
    assert not open_page(only_failures, "trial", trial="3").warning


def test_an_unknown_trial_falls_back_to_the_first(normal: Path, open_page: Open) -> None:
    assert open_page(normal, "trial", trial="99").title[0].value == "l2"


def test_new_rows_reach_a_page_that_is_open(maker: Maker, open_page: Open) -> None:
    maker.study(done=2, seeds=1)
    path = maker.path
    app = open_page(path)
    assert {tile.label: tile.value for tile in app.metric}["Jobs ended"] == "2 of 7"
    maker.study(done=1, seeds=1)  # the same study goes on
    app.run()
    assert {tile.label: tile.value for tile in app.metric}["Jobs ended"] == "3 of 7"


def test_the_statistics_are_there_for_who_asks(normal: Path, open_page: Open) -> None:
    app = open_page(normal, "ablation")
    assert not any("Effects:" in block.value for block in app.code)
    app.toggle(key="statistics").set_value(True).run()
    assert not app.exception
    (text,) = [block.value for block in app.code if "Effects:" in block.value]
    assert "within ±0.01" in text
    sentences = [line for line in text.splitlines() if "   " not in line.strip()]  # a table's rows may be wider
    assert max(map(len, sentences)) <= 96  # what a window of 1280 pixels shows; more is cut off until one scrolls


def test_the_report_is_there_for_who_asks(one_trial: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    offered: dict[str, str] = {}
    monkeypatch.setattr(st, "download_button", lambda label, data, **_: offered.update({label: data}))
    app = open_page(one_trial, "ablation")
    assert "Report" not in offered
    app.toggle(key="report").set_value(True).run()
    assert not app.exception
    with Database.open(one_trial, read_only=True) as db:
        assert offered["Report"] == to_report(findings(db, "bias"))
