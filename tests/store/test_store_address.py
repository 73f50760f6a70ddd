from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from miras_search.errors import MirasError
from miras_search.store.address import has_password, parse_database, safe_url, sqlite_path


def test_a_path_is_an_absolute_sqlite_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    url = parse_database("runs/miras.db")
    monkeypatch.chdir("/")  # the working directory must not matter later on
    assert sqlite_path(url) == tmp_path / "runs/miras.db"
    assert url == parse_database(f"sqlite:///{tmp_path}/runs/miras.db") == parse_database(tmp_path / "runs/miras.db")
    assert safe_url(url) == str(tmp_path / "runs/miras.db")


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sqlite_path(parse_database("~/miras.db")) == tmp_path / "miras.db"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgres_urls_use_psycopg_3(scheme: str) -> None:
    url = parse_database(f"{scheme}://ann@db.lab:5433/miras")
    assert url.drivername == "postgresql+psycopg"
    assert (url.host, url.port, url.database) == ("db.lab", 5433, "miras")
    assert sqlite_path(url) is None


@pytest.mark.parametrize(
    "where",
    ["postgresql://ann:s3cret@db.lab/miras", "postgresql://ann@db.lab/miras?password=s3cret&sslmode=require"],
)
def test_a_password_is_never_shown(where: str) -> None:
    assert has_password(where)
    shown = safe_url(where)
    assert "s3cret" not in shown
    assert "ann" in shown and "db.lab/miras" in shown
    assert make_url(where).render_as_string(hide_password=False) == where  # the hidden one is a copy


def test_an_address_without_a_password_has_none() -> None:
    assert not has_password("postgresql://ann@db.lab/miras?sslmode=require")
    assert not has_password("miras.db")


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("sqlite://", "in-memory"),
        ("sqlite:///:memory:", "in-memory"),
        ("sqlite:///x.db?mode=ro", "no options"),
        ("postgresql://ann:s3cret@db.lab:port/miras", "cannot read the 'postgresql' URL"),
    ],
)
def test_what_is_no_address_is_refused(where: str, says: str) -> None:
    with pytest.raises(MirasError, match=says) as caught:
        parse_database(where)
    assert "s3cret" not in str(caught.value)
    assert caught.value.exit_code == 2
