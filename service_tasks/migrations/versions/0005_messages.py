"""Messages from a broker: the ids seen, and rejected messages."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"

_TIME = sa.DateTime(timezone=True)
_NOW = sa.text("now()")


def upgrade() -> None:
    op.create_table(
        "ingested_messages",
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("task_id", sa.Uuid, nullable=False),
        sa.Column("received_at", _TIME, nullable=False, server_default=_NOW),
        sa.PrimaryKeyConstraint("source", "message_id", name="ingested_messages_pkey"),
    )
    op.create_index("ix_ingested_messages_received_at", "ingested_messages", ["received_at"])
    op.create_table(
        "rejected_messages",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("details", JSONB, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("received_at", _TIME, nullable=False, server_default=_NOW),
        sa.PrimaryKeyConstraint("id", name="rejected_messages_pkey"),
        sa.CheckConstraint("size >= octet_length(body)", name="ck_rejected_messages_size"),
    )


def downgrade() -> None:
    op.drop_table("rejected_messages")
    op.drop_table("ingested_messages")
