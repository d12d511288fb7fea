"""Runs the named statements of a file, with the driver's errors translated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg2.errors import FeatureNotSupported, InvalidSqlStatementName, UndefinedColumn, UndefinedTable
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from service_tasks.persistence.queries import load_queries
from servicekit.database.engine import Database, Prepared
from servicekit.wire.errors import DatabaseUnavailable

#: errors before the first migration, or between migrations
_NOT_YET = (UndefinedTable, UndefinedColumn)
#: a pooler gave another connection, or a migration changed what the statement returns
_PREPARED_NO_MORE = (InvalidSqlStatementName, FeatureNotSupported)


@contextmanager
def tables_may_come() -> Iterator[None]:
    """Treat a database without the tables as away: a process may start before the migrations have run."""
    try:
        yield
    except (ProgrammingError, *_NOT_YET) as exc:
        if isinstance(exc, ProgrammingError) and not isinstance(exc.orig, _NOT_YET):
            raise
        raise DatabaseUnavailable("The tasks database is not migrated to this version yet.", retry_after=1) from exc


class Statements:
    """The statements of one file, run in the caller's transaction. Every column of a row has a name."""

    def __init__(self, file: str) -> None:
        self._queries = load_queries(file)

    def __getitem__(self, query: str) -> str:
        """The text of a statement, for running it in another way."""
        return self._queries[query]

    def run(self, session: Session, query: str, /, **parameters: Any) -> CursorResult[Any]:
        return session.connection().exec_driver_sql(self._queries[query], parameters)

    def rows(self, session: Session, query: str, /, **parameters: Any) -> list[Any]:
        return list(self.run(session, query, **parameters))

    def row(self, session: Session, query: str, /, **parameters: Any) -> Any:
        """The first row, or None."""
        return self.run(session, query, **parameters).first()


class StoreStatements(Statements):
    """The same with its own transactions; each raises `DatabaseUnavailable` if the database is away."""

    def __init__(self, database: Database, file: str) -> None:
        super().__init__(file)
        self._database = database
        self._prepared: dict[str, Prepared] = {}

    def prepare(self, query: str, **types: str) -> None:
        """Have `once` execute a statement that each connection plans once, for any values: planning takes longer than
        finding or storing one row. `types` has the type of each parameter."""
        self._prepared[query] = Prepared.of(query, self._queries[query], **types)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        with tables_may_come(), self._database.transaction() as session:
            yield session

    def once(self, query: str, /, *, before: str = "", **parameters: Any) -> list[tuple[Any, ...]]:
        """Run one statement as a transaction, in one round trip; return its rows.

        `before`: a statement that goes first, in the same message.
        """
        with tables_may_come():
            if prepared := self._prepared.get(query):
                prepared = prepared._replace(execution=before + prepared.execution)
                try:
                    return self._database.once(before + self._queries[query], parameters, prepared=prepared)
                except (DatabaseUnavailable, FeatureNotSupported) as exc:
                    if not isinstance(exc.__cause__ or exc, _PREPARED_NO_MORE):
                        raise
            return self._database.once(before + self._queries[query], parameters)

    def once_row(self, query: str, /, **parameters: Any) -> Any:
        """Run one statement in the same way; return its first row, whose columns have names, or None."""
        with tables_may_come():
            rows = self._database.once(self._queries[query], parameters, with_names=True)
        return rows[0] if rows else None
