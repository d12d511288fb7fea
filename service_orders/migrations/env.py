"""Alembic's door to the orders' history."""

from service_orders.tables import Base
from servicekit.migrations import run_environment

run_environment(Base.metadata)
