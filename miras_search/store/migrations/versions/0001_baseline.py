"""The first tables: study, run, trial, job, attempt, metrics, artifacts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "ms_metric_name",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("direction", sa.String(length=20)),
        sa.Column("unit", sa.String(length=40)),
        sa.Column("split", sa.String(length=20)),
        sa.Column("reduction", sa.String(length=40)),
        sa.Column("help", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_ms_metric_name"),
        sa.UniqueConstraint("name", name="uq_ms_metric_name_name"),
    )
    op.create_table(
        "ms_study",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("metric", sa.String(length=80), nullable=False),
        sa.Column("config_yaml", sa.Text(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("config_hash", sa.String(length=80), nullable=False),
        sa.Column("space_hash", sa.String(length=80), nullable=False),
        sa.Column("changes", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ms_study"),
        sa.UniqueConstraint("name", name="uq_ms_study_name"),
    )
    op.create_table(
        "ms_run",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid_space", sa.String(length=80), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("lease_token", sa.String(length=40), nullable=False),
        sa.Column("provenance", sa.JSON(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime()),
        sa.ForeignKeyConstraint(["study_id"], ["ms_study.id"], name="fk_ms_run_study_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_ms_run"),
        sa.UniqueConstraint("lease_token", name="uq_ms_run_lease_token"),
    )
    op.create_index("ix_ms_run_study_id", "ms_run", ["study_id"])
    op.create_table(
        "ms_trial",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("cell", sa.Text(), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("changes", sa.JSON(), nullable=False),
        sa.Column("design", sa.JSON(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("design_hash", sa.String(length=80), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.Column("finished_at", sa.DateTime()),
        sa.ForeignKeyConstraint(["study_id"], ["ms_study.id"], name="fk_ms_trial_study_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_ms_trial"),
        sa.UniqueConstraint("study_id", "number", name="uq_ms_trial_study_id_number"),
    )
    op.create_index("ix_ms_trial_study_id_design_hash", "ms_trial", ["study_id", "design_hash"])
    op.create_index("ix_ms_trial_study_id_state", "ms_trial", ["study_id", "state"])
    op.create_index("ix_ms_trial_study_id_updated_at", "ms_trial", ["study_id", "updated_at"])
    op.create_table(
        "ms_job",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("task", sa.String(length=200), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("attempt_id", sa.Integer()),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["ms_trial.id"], name="fk_ms_job_trial_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_ms_job"),
        sa.UniqueConstraint("trial_id", "task", "seed", name="uq_ms_job_trial_id_task_seed"),
    )
    op.create_index("ix_ms_job_state", "ms_job", ["state"])
    op.create_table(
        "ms_attempt",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("error_type", sa.String(length=200)),
        sa.Column("error_text", sa.Text()),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(length=80), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime()),
        sa.Column("wall_seconds", sa.Double()),
        sa.Column("peak_memory_bytes", sa.BigInteger()),
        sa.Column("last_step", sa.Integer()),
        sa.ForeignKeyConstraint(["job_id"], ["ms_job.id"], name="fk_ms_attempt_job_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["run_id"], ["ms_run.id"], name="fk_ms_attempt_run_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_ms_attempt"),
        sa.UniqueConstraint("job_id", "attempt", name="uq_ms_attempt_job_id_attempt"),
    )
    op.create_index("ix_ms_attempt_run_id", "ms_attempt", ["run_id"])
    op.create_index("ix_ms_attempt_state", "ms_attempt", ["state"])
    op.create_table(
        "ms_artifact",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("attempt_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.Integer()),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["ms_attempt.id"], name="fk_ms_artifact_attempt_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_ms_artifact"),
    )
    op.create_index("ix_ms_artifact_attempt_id", "ms_artifact", ["attempt_id"])
    op.create_table(
        "ms_final_metric",
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("name_id", sa.Integer(), nullable=False),
        sa.Column("split", sa.String(length=20), nullable=False),
        sa.Column("attempt_id", sa.Integer(), nullable=False),
        sa.Column("value", sa.Double()),
        sa.Column("flag", sa.String(length=4)),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["ms_attempt.id"], name="fk_ms_final_metric_attempt_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["ms_job.id"], name="fk_ms_final_metric_job_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["name_id"], ["ms_metric_name.id"], name="fk_ms_final_metric_name_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "name_id", "split", name="pk_ms_final_metric"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_ms_final_metric_attempt_id", "ms_final_metric", ["attempt_id"])
    op.create_index("ix_ms_final_metric_name_id_value", "ms_final_metric", ["name_id", "value"])
    op.create_table(
        "ms_metric_point",
        sa.Column("attempt_id", sa.Integer(), nullable=False),
        sa.Column("name_id", sa.Integer(), nullable=False),
        sa.Column("split", sa.String(length=20), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("value", sa.Double()),
        sa.Column("flag", sa.String(length=4)),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["ms_attempt.id"], name="fk_ms_metric_point_attempt_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["name_id"], ["ms_metric_name.id"], name="fk_ms_metric_point_name_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("attempt_id", "name_id", "split", "step", name="pk_ms_metric_point"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Drop every table, children first."""
    op.drop_table("ms_metric_point")
    op.drop_table("ms_final_metric")
    op.drop_table("ms_artifact")
    op.drop_table("ms_attempt")
    op.drop_table("ms_job")
    op.drop_table("ms_trial")
    op.drop_table("ms_run")
    op.drop_table("ms_study")
    op.drop_table("ms_metric_name")
