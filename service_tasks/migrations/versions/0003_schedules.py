"""Schedules, the runs they have made, and the leader among the workers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"

_TIME = sa.DateTime(timezone=True)
_NOW = sa.text("now()")


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("task_type", sa.Text, nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("user_id", sa.Uuid),
        sa.Column("payload", JSONB, nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("max_attempts", sa.SmallInteger, nullable=False),
        sa.Column("timeout_seconds", sa.Float),
        sa.Column("cron", sa.Text),
        sa.Column("timezone", sa.Text),
        sa.Column("every_seconds", sa.Integer),
        sa.Column("run_at", _TIME),
        sa.Column("anchor_at", _TIME, nullable=False),
        sa.Column("starts_at", _TIME),
        sa.Column("ends_at", _TIME),
        sa.Column("missed", sa.Text, nullable=False),
        sa.Column("paused_at", _TIME),
        sa.Column("next_run_at", _TIME),
        sa.Column("problem", sa.Text),
        sa.Column("last_run_at", _TIME),
        sa.Column("last_task_id", sa.Uuid),
        sa.Column("created_at", _TIME, nullable=False, server_default=_NOW),
        sa.Column("updated_at", _TIME, nullable=False, server_default=_NOW),
        sa.PrimaryKeyConstraint("id", name="schedules_pkey"),
        sa.UniqueConstraint("name", name="uq_schedules_name"),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 100", name="ck_schedules_name"),
        sa.CheckConstraint("char_length(task_type) BETWEEN 1 AND 50", name="ck_schedules_task_type"),
        sa.CheckConstraint("char_length(title) BETWEEN 1 AND 200", name="ck_schedules_title"),
        sa.CheckConstraint("priority BETWEEN 0 AND 100", name="ck_schedules_priority"),
        sa.CheckConstraint("max_attempts BETWEEN 1 AND 25", name="ck_schedules_max_attempts"),
        sa.CheckConstraint("timeout_seconds > 0 AND timeout_seconds <= 86400", name="ck_schedules_timeout"),
        sa.CheckConstraint("num_nonnulls(cron, every_seconds, run_at) = 1", name="ck_schedules_kind"),
        sa.CheckConstraint("(cron IS NULL) = (timezone IS NULL)", name="ck_schedules_timezone"),
        sa.CheckConstraint("every_seconds BETWEEN 1 AND 31622400", name="ck_schedules_every"),
        sa.CheckConstraint("starts_at <= ends_at", name="ck_schedules_dates"),
        sa.CheckConstraint("missed IN ('skip', 'run_once', 'run_all')", name="ck_schedules_missed"),
        sa.CheckConstraint("paused_at IS NULL OR next_run_at IS NULL", name="ck_schedules_paused"),
        sa.CheckConstraint("problem IS NULL OR next_run_at IS NULL", name="ck_schedules_problem"),
    )
    op.create_index(
        "ix_schedules_due",
        "schedules",
        ["next_run_at", "id"],
        postgresql_where=sa.text("next_run_at IS NOT NULL"),
    )
    op.create_table(
        "schedule_ticks",
        sa.Column("schedule_id", sa.Uuid, nullable=False),
        sa.Column("due_at", _TIME, nullable=False),
        sa.Column("task_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("schedule_id", "due_at", name="schedule_ticks_pkey"),
    )
    op.create_index("ix_schedule_ticks_due", "schedule_ticks", ["due_at"])
    op.create_table(
        "leaders",
        sa.Column("duty", sa.Text, nullable=False),
        sa.Column("worker_id", sa.Uuid, nullable=False),
        sa.Column("elected_at", _TIME, nullable=False, server_default=_NOW),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("duty", name="leaders_pkey"),
    )
    # One row that is updated every second.
    op.execute(
        "ALTER TABLE leaders SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0,"
        " autovacuum_vacuum_threshold = 200)"
    )


def downgrade() -> None:
    op.drop_table("leaders")
    op.drop_table("schedule_ticks")
    op.drop_table("schedules")
