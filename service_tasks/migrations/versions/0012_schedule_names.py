"""Names of schedules are unique for each user, so that nobody learns of another's by a conflict, or is in its way."""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.drop_constraint("uq_schedules_name", "schedules")
    # Those of nobody have names of their own too.
    op.create_unique_constraint(
        "uq_schedules_name", "schedules", ["name", "user_id"], postgresql_nulls_not_distinct=True
    )


def downgrade() -> None:
    op.drop_constraint("uq_schedules_name", "schedules")
    op.execute(
        """
        UPDATE schedules s SET name = left(name, 63) || ' ' || id
        WHERE EXISTS (SELECT FROM schedules o WHERE o.name = s.name AND o.id < s.id)
        """
    )
    op.create_unique_constraint("uq_schedules_name", "schedules", ["name"])
