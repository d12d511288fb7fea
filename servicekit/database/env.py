"""Alembic's environment for every history: it uses the connection that servicekit.database.migrations opened."""

from typing import Any

from alembic import context

from servicekit.database.privileges import grant

_given = context.config.attributes


def _grant(ctx: Any, step: Any, heads: Any, run_args: Any) -> None:
    """In the transaction of the migration, so that nobody sees a table before its privileges."""
    grant(_given["connection"], _given["service"])


context.configure(connection=_given["connection"], transaction_per_migration=True, on_version_apply=_grant)
with context.begin_transaction():
    context.run_migrations()
