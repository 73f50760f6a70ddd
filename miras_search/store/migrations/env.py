"""Run by Alembic: migrate the `ms_*` tables on the connection that `store.migrate` hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.sql.schema import SchemaItem

from miras_search.store.migrations import VERSION_TABLE
from miras_search.store.tables import Base


def include_object(
    item: SchemaItem, name: str | None, kind: str, reflected: bool, compare_to: SchemaItem | None
) -> bool:
    """Only our tables: Optuna's lie beside them."""
    return kind != "table" or (name or "").startswith("ms_")


def run(connection: Connection) -> None:
    """Migrate within the caller's transaction, so that a revision is applied whole or not at all."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        include_object=include_object,
        render_as_batch=True,  # SQLite alters a table by copying it
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
