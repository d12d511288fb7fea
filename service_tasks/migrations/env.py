"""Alembic's entry to the tasks' history, the only place where the tables are defined: the statements are SQL."""

from sqlalchemy import MetaData

from servicekit.database.migrations import run_environment

run_environment(MetaData())
