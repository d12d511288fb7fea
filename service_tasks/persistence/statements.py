"""Runs the named statements of a file, with the driver's errors translated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg2.errors import UndefinedColumn, UndefinedTable
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from service_tasks.persistence.queries import load_queries
from servicekit.database.engine import Database
from servicekit.wire.errors import DatabaseUnavailable

#: Of the very first migration, or of one between it and the last: they are applied one by one.
_NOT_YET = (UndefinedTable, UndefinedColumn)


@contextmanager
def tables_may_come() -> Iterator[None]:
    """For who started before the migrations were: they are waited for as for the database itself."""
    try:
        yield
    except (ProgrammingError, *_NOT_YET) as exc:
        if isinstance(exc, ProgrammingError) and not isinstance(exc.orig, _NOT_YET):
            raise
        raise DatabaseUnavailable("The tasks database is not migrated to this version yet.", retry_after=1) from exc


class Statements:
    """The statements of one file, for transactions of others. Columns have names, in SQLAlchemy's rows as well."""

    def __init__(self, file: str) -> None:
        self._queries = load_queries(file)

    def __getitem__(self, query: str) -> str:
        """The text of a statement, for whoever runs it another way."""
        return self._queries[query]

    def run(self, session: Session, query: str, /, **parameters: Any) -> CursorResult[Any]:
        return session.connection().exec_driver_sql(self._queries[query], parameters)

    def rows(self, session: Session, query: str, /, **parameters: Any) -> list[Any]:
        return list(self.run(session, query, **parameters))

    def row(self, session: Session, query: str, /, **parameters: Any) -> Any:
        """The first row, or None."""
        return self.run(session, query, **parameters).first()


class StoreStatements(Statements):
    """And for transactions of a store's own; each raises `DatabaseUnavailable` when it cannot be had."""

    def __init__(self, database: Database, file: str) -> None:
        super().__init__(file)
        self._database = database

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        with tables_may_come(), self._database.transaction() as session:
            yield session

    def once(self, query: str, /, **parameters: Any) -> list[tuple[Any, ...]]:
        """A transaction of this statement alone, for one round trip; gives its rows."""
        with tables_may_come():
            return self._database.once(self._queries[query], parameters)
