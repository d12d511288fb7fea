"""The address of a task's callback, and the task that delivers it: docs/decisions/0024."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_LENGTH = "char_length(callback_url) BETWEEN 1 AND 2000"


def upgrade() -> None:
    # Null in nearly every row, where neither takes a byte: the null bitmap has the same size up to 72 columns.
    op.add_column("tasks", sa.Column("callback_url", sa.Text))
    op.add_column("tasks", sa.Column("callback_task_id", sa.Uuid))
    op.create_check_constraint("ck_tasks_callback_url", "tasks", _LENGTH)
    op.create_check_constraint(
        "ck_tasks_callback_task", "tasks", "callback_task_id IS NULL OR callback_url IS NOT NULL"
    )
    op.add_column("schedules", sa.Column("callback_url", sa.Text))
    op.create_check_constraint("ck_schedules_callback_url", "schedules", _LENGTH)


def downgrade() -> None:
    op.drop_column("schedules", "callback_url")
    op.drop_column("tasks", "callback_task_id")
    op.drop_column("tasks", "callback_url")
