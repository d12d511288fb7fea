"""Alembic's entry to the tasks' history, which alone tells what the tables are: the statements are SQL."""

from sqlalchemy import MetaData

from servicekit.database.migrations import run_environment

run_environment(MetaData())
