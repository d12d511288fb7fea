"""When a request was answered with an existing task: its idempotency key is forgotten before a task that stays."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column(
        "answered_keys",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
    )
    op.create_index("ix_answered_keys_created_at", "answered_keys", ["created_at"])


def downgrade() -> None:
    op.drop_column("answered_keys", "created_at")
