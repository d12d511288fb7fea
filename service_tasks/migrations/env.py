"""Alembic's door to the tasks' history."""

from service_tasks.persistence.tables import Base
from servicekit.database.migrations import run_environment

run_environment(Base.metadata)
