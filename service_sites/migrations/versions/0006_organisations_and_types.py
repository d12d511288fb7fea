"""Statistics of which organisations have work items of which types."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("CREATE STATISTICS st_work_items_organisation_type (mcv) ON organisation, type FROM work_items")
    op.execute("ANALYZE work_items")


def downgrade() -> None:
    op.execute("DROP STATISTICS st_work_items_organisation_type")
