"""Alembic environment of the miras-search tables.

`REVISIONS` repeats the ids in `versions/`, oldest first, so that opening a database needs no Alembic; a test compares
the two. To add one: change `store/tables.py`, write `versions/NNNN_what.py` in the manner of the ones there, and append
its id here; the tests say what still differs from the tables.
"""

from __future__ import annotations

REVISIONS: tuple[str, ...] = ("0001", "0002")
HEAD = REVISIONS[-1]
LOCK_KEY = 0x4D495241  # any constant: on PostgreSQL, writers and migrations take turns by this advisory lock
VERSION_TABLE = "ms_alembic_version"  # plain `alembic_version` is Optuna's, in the same database
