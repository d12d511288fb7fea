"""Second factors, and passwords that are to be changed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0007"
down_revision = "0006"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("users", sa.Column("must_change_password", sa.Boolean, nullable=False, server_default="false"))
    op.create_table(
        "factors",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("last_step", sa.BigInteger, nullable=False),
        sa.Column("recovery", ARRAY(sa.LargeBinary), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("confirmed_at", TIME),
        sa.Column("last_used_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_factors"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_factors_user_id", ondelete="CASCADE"),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="ck_factors_name"),
        sa.CheckConstraint("last_step >= 0", name="ck_factors_last_step"),
        sa.CheckConstraint("cardinality(recovery) <= 10", name="ck_factors_recovery"),
    )
    op.create_index("ix_factors_user_id", "factors", ["user_id"])


def downgrade() -> None:
    op.drop_table("factors")
    op.drop_column("users", "must_change_password")
