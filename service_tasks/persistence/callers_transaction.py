"""Stores a task in a transaction that the caller commits or rolls back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import psycopg2
import psycopg2.extensions
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, scoped_session

from service_tasks.errors import UserDeleted
from service_tasks.persistence.insertion import new_row
from service_tasks.persistence.queries import load_queries
from service_tasks.use_cases.tasks import NewTask, PastExecuteAt
from servicekit.events import tombstones
from servicekit.identity.reach import Reach

#: the connections that tasks can be stored through
CallersConnection = Session | scoped_session[Session] | Connection | psycopg2.extensions.connection
Run = Callable[[str, Mapping[str, Any]], Sequence[Sequence[Any]]]


class CallersTransaction:
    """Implements `use_cases.tasks.MakingRepository` with ids. It neither commits nor rolls back, and does not translate
    the driver's errors."""

    def __init__(self, connection: CallersConnection) -> None:
        """Raises `TypeError` for anything else, `ValueError` for a connection in autocommit mode."""
        self._run = _runner(connection)
        self._queries = load_queries()

    def add(self, task: NewTask, announcement: str | None = None) -> UUID | None:
        if task.execute_at is not None:
            ((is_future,),) = self._run(self._queries["is_future"], {"execute_at": task.execute_at})
            if not is_future:
                raise PastExecuteAt
        if task.user_id is not None and self._run(*tombstones.select_buried({task.user_id})):
            raise UserDeleted
        insert = "enqueue" if announcement is None else "announce_and_enqueue"
        return task.id if self._run(self._queries[insert], new_row(task, announcement)) else None

    def by_unique_key(self, unique_key: str, *, answers: tuple[str, bytes] | None = None, reach: Reach) -> UUID | None:
        # The answer is not stored: a program has no rights on that table.
        for (task_id,) in self._run(self._queries["live_id"], {"unique_key": unique_key}):
            return _uuid(task_id)
        return None

    def by_key(self, idempotency_key: str, *, reach: Reach) -> tuple[UUID, bytes] | None:
        for task_id, request_hash in self._run(self._queries["id_by_key"], {"idempotency_key": idempotency_key}):
            return _uuid(task_id), bytes(request_hash)
        return None


def _uuid(value: UUID | str) -> UUID:
    """A plain psycopg2 connection returns ids as text unless its owner registered UUIDs."""
    return UUID(str(value))


def _runner(connection: CallersConnection) -> Run:
    if isinstance(connection, psycopg2.extensions.connection):
        _require_transaction(connection)
        return partial(_run_plainly, connection)
    if isinstance(connection, Session | scoped_session):
        connection = connection.connection()
    if not isinstance(connection, Connection) or connection.dialect.driver != "psycopg2":
        raise TypeError("give a Session or a Connection of SQLAlchemy over psycopg2, or a connection of psycopg2")
    _require_transaction(connection.connection.dbapi_connection)
    return partial(_run_through, connection)


def _run_through(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
    return connection.exec_driver_sql(statement, dict(parameters)).all()


def _run_plainly(connection: Any, statement: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
    # A plain cursor: the connection's default may return dictionaries.
    with connection.cursor(cursor_factory=psycopg2.extensions.cursor) as cursor:
        cursor.execute(statement, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def _require_transaction(connection: Any) -> None:
    if connection.autocommit:
        raise ValueError("this connection is in autocommit mode; a task is made in a transaction")
