"""Locks: what a study said before its results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Create the table of locks."""
    op.create_table(
        "ms_lock",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("locked_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["ms_study.id"], name="fk_ms_lock_study_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study_id", name="pk_ms_lock"),
    )


def downgrade() -> None:
    """Drop the table of locks."""
    op.drop_table("ms_lock")
