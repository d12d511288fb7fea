"""Alembic's door to the users' history."""

from service_users.tables import Base
from servicekit.database.migrations import run_environment

run_environment(Base.metadata)
