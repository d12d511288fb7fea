"""Alembic's environment for every history: it uses the connection that servicekit.database.migrations opened."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
