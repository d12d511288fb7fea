"""Who works on which site, and the events that told so."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "site_members",
        sa.Column("site_id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("site_id", "user_id", name="pk_site_members"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_site_members_user_id", ondelete="CASCADE"),
    )
    op.create_index("ix_site_members_user_id", "site_members", ["user_id"])
    op.create_table(
        "processed_events",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("processed_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("id", name="pk_processed_events"),
    )
    op.create_index("ix_processed_events_processed_at", "processed_events", ["processed_at"])


def downgrade() -> None:
    op.drop_table("processed_events")
    op.drop_table("site_members")
