"""Connections that threads keep for themselves: one statement is one transaction is one round trip."""

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

    It runs the statements of `first` at once. Raises `DatabaseUnavailable`.
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
    """One connection per thread, opened at its first statement and again after it broke.

    For claims and completions, which decide how fast a worker is and how soon it starts a task. Among threads that
    share one interpreter every round trip costs a turn: a pooled session needs three for a transaction (BEGIN, the
    statement, COMMIT), this needs one.
    """

    def __init__(self, database: Database, first: str, parameters: Mapping[str, Any] | None = None) -> None:
        """`first` is what each new connection runs before all else: its settings, and what it prepares."""
        # `threading.local` calls this once in each thread.
        self._database = database
        self._first = first
        self._first_parameters = parameters
        self._connection: Any = None

    def run(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run one statement and commit it; gives its rows.

        Raises `DatabaseUnavailable` or `DatabaseTooSlow`; whether it was committed is then unknown. Raises
        `DatabaseLocked` when it was not, for a lock.
        """
        rows: list[tuple[Any, ...]] = self._run(
            statement, parameters, lambda cursor: cursor.fetchall() if cursor.description is not None else []
        )
        return rows

    def count(self, statement: str, parameters: Mapping[str, Any]) -> int:
        """The same for a statement that returns no rows; gives the number of rows it wrote."""
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
        """The same for a text that begins a transaction of several statements."""
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
