"""Alembic's door to the orders' history."""

from service_orders.tables import Base
from servicekit.database.migrations import run_environment

run_environment(Base.metadata)
