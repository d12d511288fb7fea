"""Tasks and workers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)
_NOW = sa.text("now()")


def upgrade() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("task_type", sa.Text, nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("user_id", sa.Uuid),
        sa.Column("payload", JSONB, nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("attempts", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("max_attempts", sa.SmallInteger, nullable=False),
        sa.Column("timeout_seconds", sa.Float),
        sa.Column("execute_at", _TIME, nullable=False),
        sa.Column("lease_no", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("worker_id", sa.Uuid),
        sa.Column("deadline_at", _TIME),
        sa.Column("progress_percent", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("progress_message", sa.Text),
        sa.Column("result", JSONB),
        sa.Column("error", sa.Text),
        sa.Column("errors", JSONB, nullable=False, server_default=sa.text("'[]'::jsonb")),
        sa.Column("cancel_requested_at", _TIME),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("request_hash", sa.LargeBinary),
        sa.Column("created_at", _TIME, nullable=False, server_default=_NOW),
        sa.Column("updated_at", _TIME, nullable=False, server_default=_NOW),
        sa.Column("started_at", _TIME),
        sa.Column("completed_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="tasks_pkey"),
        sa.CheckConstraint(
            "state IN ('scheduled', 'ready', 'running', 'completed', 'failed', 'cancelled')",
            name="ck_tasks_state",
        ),
        sa.CheckConstraint("char_length(task_type) BETWEEN 1 AND 50", name="ck_tasks_task_type"),
        sa.CheckConstraint("char_length(title) BETWEEN 1 AND 200", name="ck_tasks_title"),
        sa.CheckConstraint("priority BETWEEN 0 AND 100", name="ck_tasks_priority"),
        sa.CheckConstraint("max_attempts BETWEEN 1 AND 25", name="ck_tasks_max_attempts"),
        sa.CheckConstraint("attempts BETWEEN 0 AND max_attempts", name="ck_tasks_attempts"),
        sa.CheckConstraint("timeout_seconds > 0 AND timeout_seconds <= 86400", name="ck_tasks_timeout"),
        sa.CheckConstraint("progress_percent BETWEEN 0 AND 100", name="ck_tasks_progress"),
        sa.CheckConstraint(
            "state <> 'running' OR (worker_id IS NOT NULL AND started_at IS NOT NULL AND deadline_at IS NOT NULL)",
            name="ck_tasks_running",
        ),
        sa.CheckConstraint("worker_id IS NULL OR state IN ('running', 'cancelled')", name="ck_tasks_worker"),
        sa.CheckConstraint(
            "(completed_at IS NOT NULL) = (state IN ('completed', 'failed', 'cancelled'))",
            name="ck_tasks_completed_at",
        ),
        sa.CheckConstraint("(idempotency_key IS NULL) = (request_hash IS NULL)", name="ck_tasks_idempotency"),
    )
    op.create_index(
        "ix_tasks_ready",
        "tasks",
        ["task_type", sa.text("priority DESC"), "execute_at", "id"],
        postgresql_where=sa.text("state = 'ready'"),
    )
    op.create_index(
        "ix_tasks_scheduled", "tasks", ["execute_at", "id"], postgresql_where=sa.text("state = 'scheduled'")
    )
    op.create_index("ix_tasks_worker", "tasks", ["worker_id"], postgresql_where=sa.text("worker_id IS NOT NULL"))
    op.create_index(
        "ix_tasks_user",
        "tasks",
        ["user_id", sa.text("id DESC")],
        postgresql_where=sa.text("user_id IS NOT NULL"),
    )
    op.create_index(
        "ix_tasks_ended_badly",
        "tasks",
        ["state", sa.text("id DESC")],
        postgresql_where=sa.text("state IN ('failed', 'cancelled')"),
    )
    op.create_index(
        "uq_tasks_idempotency_key",
        "tasks",
        ["idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    # Every task is updated at least twice in its life: room on the page for the new versions, and a vacuum
    # that comes after a hundredth of the table has changed instead of a fifth.
    op.execute(
        "ALTER TABLE tasks SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01,"
        " autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 1,"
        " autovacuum_analyze_scale_factor = 0.02)"
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("task_types", ARRAY(sa.Text), nullable=False),
        sa.Column("lease_seconds", sa.Float, nullable=False),
        sa.Column("started_at", _TIME, nullable=False, server_default=_NOW),
        sa.Column("heartbeat_at", _TIME, nullable=False, server_default=_NOW),
        sa.PrimaryKeyConstraint("id", name="workers_pkey"),
        sa.CheckConstraint("lease_seconds > 0", name="ck_workers_lease"),
    )
    # A few rows, each updated every few seconds.
    op.execute(
        "ALTER TABLE workers SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0,"
        " autovacuum_vacuum_threshold = 200)"
    )


def downgrade() -> None:
    op.drop_table("workers")
    op.drop_table("tasks")
