"""Ageing priorities, unique keys of live tasks, limits of types, and further invariants.

Why one table, and what each index costs: docs/decisions/0021.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TIME = sa.DateTime(timezone=True)
_NOW = sa.text("now()")
_TURN = "((execute_at AT TIME ZONE 'UTC'::text) - priority::double precision * '00:01:00'::interval)"


def upgrade() -> None:
    # A waiting task gains a point of priority a minute. Two tasks grow older together, so their order never
    # changes, and an index can hold it.
    op.drop_index("ix_tasks_ready", "tasks")
    op.create_index(
        "ix_tasks_ready",
        "tasks",
        ["task_type", sa.text(_TURN), "id"],
        postgresql_where=sa.text("state = 'ready'"),
    )
    # The next task of each user, for types with a limit per user.
    op.create_index(
        "ix_tasks_ready_of_user",
        "tasks",
        ["task_type", "user_id", sa.text(_TURN), "id"],
        postgresql_where=sa.text("state = 'ready' AND user_id IS NOT NULL"),
    )
    # With the type, so that the running tasks of a limited type are counted from the index only.
    op.drop_index("ix_tasks_worker", "tasks")
    op.create_index(
        "ix_tasks_worker", "tasks", ["worker_id", "task_type"], postgresql_where=sa.text("worker_id IS NOT NULL")
    )
    op.add_column("tasks", sa.Column("unique_key", sa.Text))
    op.create_index(
        "uq_tasks_unique_key",
        "tasks",
        ["unique_key"],
        unique=True,
        postgresql_where=sa.text("unique_key IS NOT NULL AND state IN ('scheduled', 'ready', 'running')"),
    )
    op.create_check_constraint("ck_tasks_unique_key", "tasks", "char_length(unique_key) BETWEEN 1 AND 200")
    op.create_check_constraint("ck_tasks_deadline", "tasks", "(deadline_at IS NOT NULL) = (state = 'running')")
    op.create_check_constraint("ck_tasks_result", "tasks", "(result IS NOT NULL) = (state = 'completed')")
    op.create_check_constraint("ck_tasks_lease", "tasks", "lease_no >= attempts")
    # Never read: completed_at of a cancelled task is the same moment.
    op.drop_column("tasks", "cancel_requested_at")
    op.create_table(
        "task_type_controls",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("max_running", sa.Integer),
        sa.Column("max_running_per_user", sa.Integer),
        sa.Column("updated_at", _TIME, nullable=False, server_default=_NOW),
        sa.PrimaryKeyConstraint("name", name="task_type_controls_pkey"),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 50", name="ck_task_type_controls_name"),
        sa.CheckConstraint("max_running > 0", name="ck_task_type_controls_max_running"),
        sa.CheckConstraint("max_running_per_user > 0", name="ck_task_type_controls_max_running_per_user"),
    )


def downgrade() -> None:
    op.drop_table("task_type_controls")
    op.add_column("tasks", sa.Column("cancel_requested_at", _TIME))
    for name in ("ck_tasks_lease", "ck_tasks_result", "ck_tasks_deadline", "ck_tasks_unique_key"):
        op.drop_constraint(name, "tasks", type_="check")
    op.drop_index("uq_tasks_unique_key", "tasks")
    op.drop_column("tasks", "unique_key")
    op.drop_index("ix_tasks_worker", "tasks")
    op.create_index("ix_tasks_worker", "tasks", ["worker_id"], postgresql_where=sa.text("worker_id IS NOT NULL"))
    op.drop_index("ix_tasks_ready_of_user", "tasks")
    op.drop_index("ix_tasks_ready", "tasks")
    op.create_index(
        "ix_tasks_ready",
        "tasks",
        ["task_type", sa.text("priority DESC"), "execute_at", "id"],
        postgresql_where=sa.text("state = 'ready'"),
    )
