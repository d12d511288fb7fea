"""A message to the address that a user had before."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    _require("purpose IN ('reset', 'invitation', 'email', 'moved')", "purpose IN ('email', 'moved')")


def downgrade() -> None:
    op.execute("DELETE FROM one_time_tokens WHERE purpose = 'moved'")
    _require("purpose IN ('reset', 'invitation', 'email')", "purpose = 'email'")


def _require(purpose: str, with_email: str) -> None:
    for name, rule in (("purpose", purpose), ("email", f"(email IS NOT NULL) = ({with_email})")):
        op.drop_constraint(f"ck_one_time_tokens_{name}", "one_time_tokens")
        op.create_check_constraint(f"ck_one_time_tokens_{name}", "one_time_tokens", rule)
