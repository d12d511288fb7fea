"""What the event streams ask of PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from psycopg2.errors import UndefinedTable
from sqlalchemy.exc import ProgrammingError

from service_tasks.domain.task import State
from service_tasks.domain.watched import WatchedTask
from service_tasks.persistence.queries import load_queries
from service_tasks.persistence.task_store import LARGEST_IN_LIST
from servicekit.database import Database
from servicekit.errors import DatabaseUnavailable


class WatchStore:
    """Raises `DatabaseUnavailable` or `DatabaseTooSlow` when the database cannot be had."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._statement = load_queries()["watched"]

    def changed(self, seen: Mapping[UUID, datetime | None]) -> dict[UUID, WatchedTask | None]:
        """Those tasks whose `updated_at` is not the one given; None for one that is not there. One statement."""
        parameters = {
            "ids": [str(task_id) for task_id in seen],
            "seen": list(seen.values()),
            "largest": LARGEST_IN_LIST,
        }
        try:
            with self._database.transaction() as session:
                rows = list(session.connection().exec_driver_sql(self._statement, parameters))
        except ProgrammingError as exc:
            if isinstance(exc.orig, UndefinedTable):
                # Started before the migrations were: wait for them as for the database itself.
                raise DatabaseUnavailable("The tasks database has no tables yet.", retry_after=1) from exc
            raise
        return {row[0]: None if row[1] is None else WatchedTask(row[0], State(row[1]), *row[2:]) for row in rows}
