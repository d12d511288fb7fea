"""A waiting task has an attempt left: one without would make every claim that meets it fail."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_check_constraint(
        "ck_tasks_attempt_left", "tasks", "state NOT IN ('scheduled', 'ready') OR attempts < max_attempts"
    )


def downgrade() -> None:
    op.drop_constraint("ck_tasks_attempt_left", "tasks")
