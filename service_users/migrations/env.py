"""Alembic's door to the users' history."""

from service_users.tables import Base
from servicekit.migrations import run_environment

run_environment(Base.metadata)
