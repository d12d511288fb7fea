"""Read what reports need of closed items in their order."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute(
        "CREATE INDEX ix_work_items_reports ON work_items (id)"
        " INCLUDE (site_id, state, organisation, submitted_at, first_closed_at)"
    )


def downgrade() -> None:
    op.execute("DROP INDEX ix_work_items_reports")
