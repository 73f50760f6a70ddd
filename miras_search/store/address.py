"""Where a database is: a path or a URL in, a SQLAlchemy URL out, and a form that is safe to print."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from miras_search.errors import MirasError

SECRET_QUERY_KEYS = ("password", "passwd", "sslpassword")  # libpq takes these in the query too
DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}


def parse_database(where: str | Path | URL) -> URL:
    """A path (`miras.db`) or a URL (`postgresql://host/name`) as a SQLAlchemy URL; SQLite paths become absolute.

    Raises MirasError for text that is neither, and for an in-memory SQLite database, which no other process could read.
    """
    if not isinstance(where, URL | Path | str):
        raise MirasError(f"database: {where!r} is no path and no URL: write a path such as miras.db")
    if isinstance(where, URL):
        url = where
    elif isinstance(where, Path):
        url = URL.create("sqlite", database=str(where.expanduser()))
    elif "://" in where:
        try:
            url = make_url(where)
        except (ArgumentError, ValueError):
            scheme = where.split("://", 1)[0]  # the rest may hold a password
            raise MirasError(
                f"database: cannot read the {scheme!r} URL: write a path, or postgresql://user@host:port/name"
            ) from None
    elif where.strip():
        url = URL.create("sqlite", database=str(Path(where).expanduser()))
    else:
        raise MirasError("database: empty: write a path such as miras.db, or a URL")
    url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise MirasError("database: an in-memory SQLite database cannot be read by anyone else: give a path")
        if url.query:
            raise MirasError("database: a SQLite URL takes no options after '?': give the path alone")
        url = url.set(database=str(Path(str(url.database)).expanduser().absolute()))
    return url


def safe_url(where: str | Path | URL) -> str:
    """The database as text with any password hidden; a SQLite file as its path."""
    url = parse_database(where)
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    hidden = {key: "***" for key in url.query if key in SECRET_QUERY_KEYS}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def has_password(where: str | Path | URL) -> bool:
    """Whether the address itself holds a password, which on a command line anyone on the machine can read."""
    url = parse_database(where)
    return url.password is not None or any(key in url.query for key in SECRET_QUERY_KEYS)


def sqlite_path(url: URL) -> Path | None:
    """The file of a SQLite database; None for a server."""
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def is_new(where: str | Path | URL) -> bool:
    """Whether it is a SQLite file that does not exist; a server is not asked. Raises what `parse_database` raises."""
    file = sqlite_path(parse_database(where))
    return file is not None and not file.exists()


def read_only_url(url: URL) -> URL:
    """The same SQLite file, opened so that SQLite itself refuses a write; a server's URL is returned as it is."""
    path = sqlite_path(url)
    if path is None:
        return url
    query = {"mode": "ro", "uri": "true", **({"immutable": "1"} if _is_archived(path) else {})}
    return url.set(database=f"file:{quote(str(path))}", query=query)


def _is_archived(path: Path) -> bool:
    """Whether a reader may not write beside the file, as SQLite's log asks even of readers, and no log is in use."""
    log, index = (path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm"))
    in_use = index.exists() or (log.exists() and log.stat().st_size > 0)
    return not in_use and not os.access(path.parent, os.W_OK)
