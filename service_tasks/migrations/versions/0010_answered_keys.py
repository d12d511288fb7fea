"""The idempotency keys of requests answered with an existing task that had their unique key."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "answered_keys",
        sa.Column("idempotency_key", sa.Text, nullable=False),
        sa.Column("request_hash", sa.LargeBinary, nullable=False),
        sa.Column("task_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("idempotency_key", name="pk_answered_keys"),
    )
    op.create_index("ix_answered_keys_task_id", "answered_keys", ["task_id"])


def downgrade() -> None:
    op.drop_table("answered_keys")
