"""Orders."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "orders",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("items", JSONB, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("total_amount", sa.Numeric(10, 2), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_orders"),
        sa.CheckConstraint("status IN ('created', 'in_progress', 'completed', 'cancelled')", name="ck_orders_status"),
        sa.CheckConstraint("total_amount >= 0", name="ck_orders_total_not_negative"),
        sa.CheckConstraint(
            "jsonb_typeof(items) = 'array' AND jsonb_array_length(items) BETWEEN 1 AND 200",
            name="ck_orders_items_count",
        ),
    )
    op.create_index("ix_orders_newest", "orders", [sa.text("created_at DESC"), sa.text("id DESC")])
    op.create_index("ix_orders_user_newest", "orders", ["user_id", sa.text("created_at DESC"), sa.text("id DESC")])


def downgrade() -> None:
    op.drop_table("orders")
