"""The audit by who did it."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    # What has no actor, such as refusals, is most of it.
    op.create_index(
        "ix_audit_actor", "audit", ["actor", sa.text("id DESC")], postgresql_where=sa.text("actor IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_index("ix_audit_actor", "audit")
