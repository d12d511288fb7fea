"""How many tasks each worker holds, and how many ended in each minute."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_LOAD = ("slots", "busy", "threads", "busy_threads")


def upgrade() -> None:
    for name in _LOAD:
        op.add_column("workers", sa.Column(name, sa.Integer, nullable=False, server_default=sa.text("0")))
    op.create_table(
        "task_minutes",
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("worker_id", sa.Uuid, nullable=False),
        sa.Column("task_type", sa.Text, nullable=False),
        sa.Column("completed", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("retried", sa.Integer, nullable=False),
        sa.Column("waits", sa.ARRAY(sa.Integer), nullable=False),
        sa.Column("runs", sa.ARRAY(sa.Integer), nullable=False),
        sa.PrimaryKeyConstraint("minute", "worker_id", "task_type", name="task_minutes_pkey"),
    )
    # The rows of the present minute are written again with every heartbeat.
    op.execute(
        "ALTER TABLE task_minutes SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05,"
        " autovacuum_vacuum_threshold = 500)"
    )
    # Cancels are counted from the table: they happen in any process, and are few.
    op.create_index("ix_tasks_cancelled_at", "tasks", ["completed_at"], postgresql_where=sa.text("state = 'cancelled'"))


def downgrade() -> None:
    op.drop_index("ix_tasks_cancelled_at", "tasks")
    op.drop_table("task_minutes")
    for name in reversed(_LOAD):
        op.drop_column("workers", name)
