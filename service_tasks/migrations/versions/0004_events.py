"""The outbox and inbox of tasks."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _outbox()
    _inbox()


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("subject", sa.Uuid, nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.Column("data", JSONB, nullable=False),
        sa.Column("spread", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.PrimaryKeyConstraint("position", name="pk_outbox"),
        sa.UniqueConstraint("id", name="uq_outbox_id"),
        sa.CheckConstraint("jsonb_typeof(data) = 'object'", name="ck_outbox_data"),
    )
    op.create_index("ix_outbox_unspread", "outbox", ["position"], postgresql_where=sa.text("NOT spread"))
    op.create_table(
        "outbox_deliveries",
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("subject", sa.Uuid, nullable=False),
        sa.Column("refusals", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", _TIME),
        sa.Column("refused_at", _TIME),
        sa.Column("reason", sa.Text),
        sa.PrimaryKeyConstraint("position", "destination", name="pk_outbox_deliveries"),
        sa.ForeignKeyConstraint(
            ["position"], ["outbox.position"], name="fk_outbox_deliveries_position", ondelete="CASCADE"
        ),
        sa.CheckConstraint("char_length(destination) BETWEEN 1 AND 50", name="ck_outbox_deliveries_destination"),
        sa.CheckConstraint("refused_at IS NULL OR reason IS NOT NULL", name="ck_outbox_deliveries_refused"),
    )
    op.create_index(
        "ix_outbox_deliveries_waiting",
        "outbox_deliveries",
        ["destination", "position"],
        postgresql_where=sa.text("refused_at IS NULL"),
    )
    op.create_index(
        "ix_outbox_deliveries_held",
        "outbox_deliveries",
        ["destination", "subject"],
        postgresql_where=sa.text("due_at IS NOT NULL AND refused_at IS NULL"),
    )


def _inbox() -> None:
    op.create_table(
        "processed_events",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("processed_at", _TIME, nullable=False, server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("id", name="pk_processed_events"),
    )
    op.create_index("ix_processed_events_processed_at", "processed_events", ["processed_at"])
    op.create_table(
        "tombstones",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("deleted_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tombstones"),
    )


def downgrade() -> None:
    op.drop_table("tombstones")
    op.drop_table("processed_events")
    op.drop_table("outbox_deliveries")
    op.drop_table("outbox")
