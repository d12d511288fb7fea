"""Failed and cancelled tasks of one type are found without looking through those of the others."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_index(
        "ix_tasks_ended_badly_of_type",
        "tasks",
        ["state", "task_type", sa.text("id DESC")],
        postgresql_where=sa.text("state IN ('failed', 'cancelled')"),
    )


def downgrade() -> None:
    op.drop_index("ix_tasks_ended_badly_of_type", "tasks")
