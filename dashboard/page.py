"""What every page begins with: the database, the chosen study, and the strip that says where its numbers come from."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import streamlit as st

from miras_search.analysis.reported import Reported
from miras_search.analysis.search import SearchReport, Seen, history, search_report
from miras_search.analysis.snapshot import Snapshot, load
from miras_search.analysis.stored import stored_tables
from miras_search.analysis.stored_findings import stored_findings
from miras_search.analysis.table import AblationTable
from miras_search.dashboard.launch import VARIABLE
from miras_search.dashboard.progress import ago, stamp
from miras_search.errors import MirasError
from miras_search.export.findings import to_text
from miras_search.export.palette import Palette, palette
from miras_search.store import queries
from miras_search.store.address import parse_database, sqlite_path
from miras_search.store.database import Database
from miras_search.store.types import CurveRow, StudyRow

STUDY = "study"  # the query parameter and the key of the selectbox
CHECK_SECONDS = 5.0  # between looks for newer results
STATISTICS_WIDTH = 96  # characters of code that a window of 1280 pixels shows without scrolling


def database() -> Database:
    """The database of the environment, opened once. Stops the page with one line where it cannot be read."""
    where = os.environ.get(VARIABLE, "miras.db")
    try:
        url = parse_database(where)
        return _opened(url.render_as_string(hide_password=False), _identity(sqlite_path(url)))
    except MirasError as error:
        st.title("miras-search")
        st.error(str(error), icon=":material/database_off:")
        st.caption("This page looks again when it is reloaded.")
        st.stop()


def _identity(path: Path | None) -> int:
    """A number that changes when the file is replaced by another of the same name; an open handle keeps the old one."""
    return path.stat().st_ino if path is not None and path.exists() else 0


@st.cache_resource(max_entries=4, show_spinner=False)
def _opened(url: str, identity: int) -> Database:
    return Database.open(url, read_only=True)


def studies() -> list[StudyRow]:
    """Every study, the one with the newest change first."""
    db = database()
    found = _studies(db, db.name, queries.change_token(db, None))
    return sorted(found, key=lambda row: row.updated_at, reverse=True)


@st.cache_data(max_entries=4, show_spinner=False)
def _studies(_db: Database, where: str, token: tuple[int, str]) -> list[StudyRow]:
    return queries.studies(_db)


def chosen() -> str | None:
    """The name of the study that the sidebar shows; None in an empty database."""
    name = st.session_state.get(STUDY)
    return None if name is None else str(name)


def snapshot() -> Snapshot:
    """The chosen study as it is now. Stops the page with a hint where the database holds none."""
    name = chosen()
    if name is None:
        st.title("No study yet")
        st.markdown("This database holds no study. Start one, and its results appear here while it runs:")
        st.code("miras-search run quickstart", language="bash")
        st.caption(f"Database: {database().name}")
        st.stop()
    return current(name)


def current(name: str) -> Snapshot:
    """The study of that name, read again only when something was written to it."""
    db = database()
    return _snapshot(db, db.name, name, token(name))


def token(name: str) -> tuple[int, str]:
    """Changes with every write to the study. Runs the whole page again where the study is no longer there."""
    db = database()
    ids = {row.name: row.id for row in studies()}
    if name not in ids:  # the file was replaced while a page was open: the sidebar chooses again
        st.rerun()
    return queries.change_token(db, ids[name])


@st.cache_data(max_entries=8, show_spinner=False)
def _snapshot(_db: Database, where: str, name: str, token: tuple[int, str]) -> Snapshot:
    return load(_db, name)


def tables(
    name: str, *, metric: str | None, split: str | None, against: str | None, task: str | None
) -> list[AblationTable]:
    """The tables that the command line would print with these options. Raises MirasError as `stored_tables` does."""
    db = database()
    return _tables(db, db.name, name, token(name), metric, split, against, task)


@st.cache_data(max_entries=32, show_spinner=False)
def _tables(
    _db: Database,
    where: str,
    name: str,
    token: tuple[int, str],
    metric: str | None,
    split: str | None,
    against: str | None,
    task: str | None,
) -> list[AblationTable]:
    return stored_tables(_db, name, metric=metric, split=split, against=against, task=task)


def search(name: str) -> tuple[SearchReport, list[Seen]] | None:
    """How the search of that name stands, and its trials in the order they were drawn; None for a study without one."""
    db = database()
    return _search(db, db.name, name, token(name))


@st.cache_data(max_entries=8, show_spinner=False)
def _search(_db: Database, where: str, name: str, token: tuple[int, str]) -> tuple[SearchReport, list[Seen]] | None:
    study = queries.study(_db, name)
    report = search_report(_db, study)
    return None if report is None else (report, history(_db, study))


def statistics(
    name: str, *, metric: str | None, split: str | None, against: str | None, task: str | None, margin: float
) -> str:
    """What `miras-search table --statistics` prints below the table. Raises MirasError as `stored_tables` does."""
    db = database()
    return _statistics(db, db.name, name, token(name), metric, split, against, task, margin)


@st.cache_data(max_entries=32)
def _statistics(
    _db: Database,
    where: str,
    name: str,
    token: tuple[int, str],
    metric: str | None,
    split: str | None,
    against: str | None,
    task: str | None,
    margin: float,
) -> str:
    shown = _tables(_db, where, name, token, metric, split, against, task)
    return to_text(*stored_findings(_db, name, shown, margin=margin), width=STATISTICS_WIDTH)


def report(name: str, *, metric: str | None, split: str | None, against: str | None) -> str:
    """The page that `miras-search export` writes. Raises MirasError as `stored_tables` does."""
    db = database()
    return _report(db, db.name, name, token(name), metric, split, against)


@st.cache_data(max_entries=4)
def _report(
    _db: Database,
    where: str,
    name: str,
    token: tuple[int, str],
    metric: str | None,
    split: str | None,
    against: str | None,
) -> str:
    from miras_search.export.report import findings, to_report  # matplotlib takes a second, so only for who asks

    return to_report(findings(_db, name, metric=metric, split=split, against=against))


@st.cache_data(max_entries=8, show_spinner=False)
def _curves(
    _db: Database,
    where: str,
    study_id: int,
    token: tuple[int, str],
    metric: str,
    split: str,
    task: str,
    cells: tuple[str, ...],
    reported: str | None,
) -> list[CurveRow]:
    if reported is not None:
        return Reported.of(_db, queries.study(_db, reported)).curves(_db, metric, split, task=task, cells=cells)
    return queries.curves(_db, study_id, metric, split, cells=cells, task=task)


def curves(
    shown: Snapshot, metric: str, split: str, task: str, cells: tuple[str, ...], *, reported: bool = False
) -> list[CurveRow]:
    """The curves of some cells on one task; with `reported` those of the table's rows, by their names."""
    db, name = database(), shown.study.name
    return _curves(db, db.name, shown.study.id, token(name), metric, split, task, cells, name if reported else None)


@st.cache_data(max_entries=8, show_spinner=False)
def _curve_names(_db: Database, where: str, study_id: int, token: tuple[int, str]) -> list[tuple[str, str]]:
    return queries.curve_names(_db, study_id)


def curve_names(shown: Snapshot) -> list[tuple[str, str]]:
    """The (metric, split) pairs that the study has curves of."""
    db = database()
    return _curve_names(db, db.name, shown.study.id, token(shown.study.name))


def colours() -> Palette:
    """The palette of the reader's theme."""
    return palette(st.context.theme.type)


def now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


def provenance(shown: Snapshot) -> None:
    """Study, commit, n of N, newest change, database; offers newer results once there are some."""
    _strip(shown.study.name, shown.study.updated_at, shown.commit, shown.finished, shown.total)


@st.fragment(run_every=CHECK_SECONDS)
def _strip(name: str, seen: datetime, commit: str | None, finished: int, total: int) -> None:
    parts = [
        f"study **{plain(name)}**",
        f"commit {commit or 'unknown'}",
        f"{finished} of {total} jobs ended",
        f"newest change {stamp(seen)} ({ago(seen, now())})",
        f"database {plain(database().name)}",
    ]
    text, button = st.columns([5, 1], vertical_alignment="center")
    text.caption("  ·  ".join(parts))
    newest = {row.name: row.updated_at for row in studies()}.get(name, seen)
    if newest > seen and button.button("Show newer results", width="stretch", icon=":material/refresh:"):
        st.rerun()


def plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#$~:|{}" else letter for letter in text)
