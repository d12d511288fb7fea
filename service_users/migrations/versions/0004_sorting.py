"""Users sorted by creation, name and address."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_KEYS = ("email_key", "name_key")


def upgrade() -> None:
    for key in _KEYS:
        op.alter_column("users", key, type_=sa.Text(collation="C"))
    op.create_index("ix_users_newest", "users", [sa.text("created_at DESC"), sa.text("id DESC")])
    op.create_index("ix_users_name", "users", ["name_key", "id"])


def downgrade() -> None:
    op.drop_index("ix_users_name", "users")
    op.drop_index("ix_users_newest", "users")
    for key in _KEYS:
        op.alter_column("users", key, type_=sa.Text(collation="default"))
