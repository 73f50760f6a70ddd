"""Alembic environment of the miras-search tables."""
