"""Accounts: sessions, API keys, the keys that sign tokens, what was revoked, and who did what."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0006"
down_revision = "0005"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("users", sa.Column("disabled_at", TIME))
    op.add_column("users", sa.Column("email_verified_at", TIME))
    op.add_column("users", sa.Column("auth_epoch", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "signing_keys",
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_signing_keys"),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("cookie_hash", sa.LargeBinary),
        sa.Column("counter", sa.Integer, nullable=False),
        sa.Column("methods", ARRAY(sa.Text), nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("refreshed_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_sessions_user_id", ondelete="CASCADE"),
        sa.UniqueConstraint("cookie_hash", name="uq_sessions_cookie_hash"),
        sa.CheckConstraint("octet_length(cookie_hash) = 32", name="ck_sessions_cookie_hash"),
        sa.CheckConstraint("counter >= 0", name="ck_sessions_counter"),
        sa.CheckConstraint("char_length(agent) <= 200", name="ck_sessions_agent"),
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id", "created_at"])
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("hint", sa.Text, nullable=False),
        sa.Column("scopes", ARRAY(sa.Text), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("last_used_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_api_keys_user_id", ondelete="CASCADE"),
        sa.UniqueConstraint("hash", name="uq_api_keys_hash"),
        sa.CheckConstraint("octet_length(hash) = 32", name="ck_api_keys_hash"),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="ck_api_keys_name"),
        sa.CheckConstraint("cardinality(scopes) BETWEEN 1 AND 8", name="ck_api_keys_scopes"),
    )
    op.create_index("ix_api_keys_user_id", "api_keys", ["user_id", "created_at"])
    op.create_table(
        "one_time_tokens",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("email", sa.Text),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_one_time_tokens"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_one_time_tokens_user_id", ondelete="CASCADE"),
        sa.CheckConstraint("purpose IN ('reset', 'invitation', 'email')", name="ck_one_time_tokens_purpose"),
        sa.CheckConstraint("(email IS NOT NULL) = (purpose = 'email')", name="ck_one_time_tokens_email"),
    )
    op.create_index("ix_one_time_tokens_user_id", "one_time_tokens", ["user_id"])
    op.create_index("ix_one_time_tokens_expires_at", "one_time_tokens", ["expires_at"])
    op.create_table(
        "throttles",
        sa.Column("subject", sa.LargeBinary, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("until", TIME, nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_throttles"),
        sa.CheckConstraint("failures > 0", name="ck_throttles_failures"),
    )
    op.create_index("ix_throttles_until", "throttles", ["until"])
    op.create_table(
        "revocations",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Uuid, nullable=False),
        sa.Column("least_epoch", sa.Integer),
        sa.Column("revoked_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("kind", "subject", name="pk_revocations"),
        sa.CheckConstraint("kind IN ('session', 'key', 'user')", name="ck_revocations_kind"),
        sa.CheckConstraint("(least_epoch IS NOT NULL) = (kind = 'user')", name="ck_revocations_least_epoch"),
    )
    op.create_index("ix_revocations_revoked_at", "revocations", ["revoked_at"])
    op.create_table(
        "audit",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("happened_at", TIME, nullable=False),
        sa.Column("actor", sa.Uuid),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject", sa.Uuid),
        sa.Column("address", sa.Text),
        sa.Column("request_id", sa.Text),
        sa.Column("details", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_newest", "audit", [sa.text("happened_at DESC"), sa.text("id DESC")])
    op.create_index("ix_audit_subject", "audit", ["subject", sa.text("happened_at DESC")])


def downgrade() -> None:
    for table in ("audit", "revocations", "throttles", "one_time_tokens", "api_keys", "sessions", "signing_keys"):
        op.drop_table(table)
    for column in ("auth_epoch", "email_verified_at", "disabled_at"):
        op.drop_column("users", column)
