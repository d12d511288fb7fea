"""A connection that a thread keeps for itself: one statement is one transaction is one round trip."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psycopg2
from psycopg2.errors import QueryCanceled, UndefinedTable
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT
from sqlalchemy.exc import SQLAlchemyError

from servicekit.database import Database, DatabaseTooSlow
from servicekit.errors import DatabaseUnavailable


def open_apart(database: Database, preparation: str) -> Any:
    """A psycopg2 connection in autocommit mode that never returns to the pool; the caller closes it.

    `preparation` is what it is told first. Raises `DatabaseUnavailable`.
    """
    try:
        pooled = database.engine.raw_connection()
        pooled.detach()
        connection: Any = pooled.dbapi_connection
        connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
        with connection.cursor() as cursor:
            cursor.execute(preparation)
    except (SQLAlchemyError, psycopg2.Error) as exc:
        raise DatabaseUnavailable(retry_after=1) from exc
    return connection


class Lines(threading.local):
    """One connection for each thread that asks, opened at its first statement and again after it broke.

    For the two statements whose number decides a worker's speed. Between threads that share one interpreter each
    wait for an answer costs a turn: a session of the pool has four of them to a transaction (is it alive, BEGIN, the
    statement, COMMIT), this has one.
    """

    def __init__(self, database: Database, preparation: str) -> None:
        """`preparation` is what each new connection is told first."""
        # Called once in each thread.
        self._database = database
        self._preparation = preparation
        self._connection: Any = None

    def run(self, statement: str, parameters: Mapping[str, Any], *, rows: bool = True) -> list[tuple[Any, ...]]:
        """Run one statement and commit it; `rows`: it has some, which are given.

        Raises `DatabaseUnavailable` or `DatabaseTooSlow`; whether it was committed is then unknown.
        """
        if self._connection is None:
            self._connection = open_apart(self._database, self._preparation)
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                found: list[tuple[Any, ...]] = cursor.fetchall() if rows else []
                return found
        except QueryCanceled as exc:
            raise DatabaseTooSlow from exc
        except UndefinedTable as exc:
            # Started before the migrations were: wait for them as for the database itself.
            raise DatabaseUnavailable("The tasks database has no tables yet.", retry_after=1) from exc
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as exc:
            self._close()
            raise DatabaseUnavailable(retry_after=1) from exc

    def run_behind(self, first: str, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run two statements in one transaction, each with a snapshot of its own; gives the rows of the second."""
        try:
            rows = self.run(f"BEGIN; {first}; {statement}", parameters)
            self.run("COMMIT", {}, rows=False)
        except BaseException:
            # Whatever it was, the next statement must not find itself inside this transaction.
            if self._connection is not None:
                self._close()
            raise
        return rows

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        with suppress(psycopg2.Error):
            connection.close()
