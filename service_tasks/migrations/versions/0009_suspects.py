"""Tasks that a worker held when it died, of which one may be the cause."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("suspects", sa.Integer))
    op.create_check_constraint("ck_tasks_suspects", "tasks", "suspects >= 1")
    op.create_index(
        "ix_tasks_suspects",
        "tasks",
        ["suspects"],
        postgresql_where=sa.text("suspects IS NOT NULL AND state IN ('scheduled', 'ready', 'running')"),
    )


def downgrade() -> None:
    op.drop_index("ix_tasks_suspects", "tasks")
    op.drop_constraint("ck_tasks_suspects", "tasks")
    op.drop_column("tasks", "suspects")
