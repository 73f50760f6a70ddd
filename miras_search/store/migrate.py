"""Bring a database's tables to the newest revision, in one transaction."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, text

from miras_search.store import migrations
from miras_search.store.sqlite import BEGIN_OPTION


def alembic_config(extra_versions: Path | None = None) -> Config:
    """Alembic's configuration without an ini file; `extra_versions` adds a folder of revisions (for tests)."""
    home = Path(migrations.__file__).parent
    config = Config()
    config.set_main_option("script_location", _escaped(home))
    config.set_main_option("path_separator", "newline")
    if extra_versions is not None:
        config.set_main_option("version_locations", f"{_escaped(home / 'versions')}\n{_escaped(extra_versions)}")
    return config


def upgrade(engine: Engine, config: Config | None = None, target: str = "head") -> None:
    """Run the missing revisions. All of them, or none: a failure rolls everything back.

    Foreign keys are off on SQLite meanwhile: altering a table copies it and drops the old one, and the drop would
    cascade into every row below.
    """
    config = config or alembic_config()
    with engine.execution_options(**{BEGIN_OPTION: "BEGIN IMMEDIATE"}).connect() as connection:
        driver = connection.connection.driver_connection
        if isinstance(driver, sqlite3.Connection):
            driver.execute("PRAGMA foreign_keys=OFF")  # has no effect within a transaction
        try:
            with connection.begin():
                _upgrade_within(connection, config, target)
        finally:
            if isinstance(driver, sqlite3.Connection):
                driver.execute("PRAGMA foreign_keys=ON")


def _upgrade_within(connection: Connection, config: Config, target: str) -> None:
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": migrations.LOCK_KEY})
    config.attributes["connection"] = connection
    command.upgrade(config, target)
    if dialect == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise RuntimeError(
                f"the migration left {len(broken)} rows without their parent, the first in {broken[0][0]}"
            )


def _escaped(path: Path) -> str:
    """The path for a configuration value, where a single % starts an interpolation."""
    return str(path).replace("%", "%%")
