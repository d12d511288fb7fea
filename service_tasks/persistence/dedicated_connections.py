"""Connections that belong to one thread: each statement is one transaction and one round trip."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import psycopg2
from psycopg2.errors import LockNotAvailable, QueryCanceled
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT
from sqlalchemy.exc import SQLAlchemyError

from service_tasks.persistence.statements import tables_may_come
from servicekit.database.engine import Database, DatabaseTooSlow, is_unavailable, without_values
from servicekit.wire.errors import DatabaseLocked, DatabaseUnavailable


def open_apart(database: Database, first: str, parameters: Mapping[str, Any] | None = None) -> Any:
    """A psycopg2 connection in autocommit mode that never returns to the pool; the caller closes it.

    Runs the statements of `first`. Raises `DatabaseUnavailable`.
    """
    try:
        pooled = database.engine.raw_connection()
        pooled.detach()
        connection: Any = pooled.dbapi_connection
        connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
        with connection.cursor() as cursor:
            cursor.execute(first, parameters)
    except (SQLAlchemyError, psycopg2.Error) as exc:
        raise DatabaseUnavailable(retry_after=1) from exc
    return connection


class DedicatedConnections(threading.local):
    """One connection per thread, opened at its first statement and again after it breaks.

    For claims and completions, on which a worker's throughput and latency depend. Among threads of one interpreter
    every round trip costs a turn: a transaction of a pooled session takes three (BEGIN, the statement, COMMIT), here
    one.
    """

    def __init__(self, database: Database, first: str, parameters: Mapping[str, Any] | None = None) -> None:
        """`first`: run by each new connection before anything else, for settings and prepared statements."""
        # `threading.local` calls this once in each thread.
        self._database = database
        self._first = first
        self._first_parameters = parameters
        self._connection: Any = None

    def run(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run one statement and commit it; return its rows.

        Raises `DatabaseUnavailable` or `DatabaseTooSlow`, and it may or may not be committed. Raises `DatabaseLocked`
        if it was not, because of a lock.
        """
        rows: list[tuple[Any, ...]] = self._run(
            statement, parameters, lambda cursor: cursor.fetchall() if cursor.description is not None else []
        )
        return rows

    def count(self, statement: str, parameters: Mapping[str, Any]) -> int:
        """The same for a statement that returns no rows; return the number of rows written."""
        number: int = self._run(statement, parameters, lambda cursor: cursor.rowcount)
        return number

    def _run(self, statement: str, parameters: Mapping[str, Any], take: Callable[[Any], Any]) -> Any:
        if self._connection is None:
            self._connection = open_apart(self._database, self._first, self._first_parameters)
        try:
            with tables_may_come(), self._connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                return take(cursor)
        except QueryCanceled as exc:
            raise DatabaseTooSlow from exc
        except LockNotAvailable as exc:
            raise DatabaseLocked from exc
        except psycopg2.Error as exc:
            if not is_unavailable(exc):
                without_values(exc)
                raise
            self._close()
            raise DatabaseUnavailable(retry_after=1) from exc

    def run_and_commit(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """The same for a text of several statements that begins a transaction."""
        try:
            rows = self.run(statement, parameters)
            self.run("COMMIT", {})
        except BaseException:
            # The next statement must not run inside this transaction.
            if self._connection is not None:
                self._close()
            raise
        return rows

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        with suppress(psycopg2.Error):
            connection.close()
