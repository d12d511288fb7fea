"""Rows by id, changed without a lock: a change counts only while its row is as it was read.

That is optimistic concurrency control by PostgreSQL's `xmin`, the id of the transaction that last wrote a row
(https://www.postgresql.org/docs/current/ddl-system-columns.html). A change takes two round trips, a refused one takes
one, and no lock is held in between. Whoever finds the row changed reads it again; somebody else has got on meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, delete, literal_column, select, update
from sqlalchemy.orm import InstrumentedAttribute

from servicekit.database.engine import Database, Prepared
from servicekit.database.statement import Statement, within_reach
from servicekit.events import outbox
from servicekit.events.cloudevents import Event
from servicekit.events.outbox import NOTHING_ELSE, Also
from servicekit.identity.reach import Reach
from servicekit.wire.errors import NotFound


class RowsById:
    """The rows of a model, for people: each within a `Reach`. Thread-safe."""

    def __init__(
        self,
        id: InstrumentedAttribute[UUID],
        *shown: Any,
        owner: InstrumentedAttribute[UUID],
        missing: type[NotFound],
    ) -> None:
        """`id` is the primary key, `shown` are the columns that `find` reads, `owner` tells whose a row is.

        `missing` is the error for a row that does not exist or is out of reach.
        """
        model = id.class_
        version: ColumnElement[Any] = literal_column("xmin")
        reached = (id == bindparam("id"), within_reach(owner))
        as_found = (*reached, version == bindparam("xmin"))
        self._missing = missing
        self._find = Statement(select(*shown, version.label("xmin")).where(*reached))
        # To plan it takes longer than to find a row.
        self._planned = Prepared.of(f"find_{model.__tablename__}", self._find.text, **self._find.types())
        self._delete = Statement(delete(model).where(*as_found).returning(id))

        @cache
        def update_of(*names: str) -> Statement:
            values: dict[str, Any] = {name: bindparam(name) for name in names}
            return Statement(update(model).where(*as_found).values(values).returning(id))

        self._update_of = update_of

    def find(self, database: Database, id: UUID, *, reach: Reach) -> Any:
        """Return a named tuple of the shown columns and the row's version. Raises `missing`."""
        for row in database.rows(self._find, {"id": id, "reach": reach.owner}, prepared=self._planned):
            return row
        raise self._missing

    def update(
        self,
        database: Database,
        row: Any,
        changed: Mapping[str, Any],
        event: Event | None,
        also: Also = NOTHING_ELSE,
        *,
        reach: Reach,
    ) -> bool:
        """Set these columns and write the event; False, with nothing done, if the row is no longer as it was found."""
        values = {**changed, "id": row.id, "xmin": row.xmin, "reach": reach.owner}
        return outbox.change(database, self._update_of(*changed), values, event, also)

    def delete(self, database: Database, row: Any, event: Event, also: Also = NOTHING_ELSE, *, reach: Reach) -> bool:
        """Delete the row and write the event; False, with nothing done, if it is no longer as it was found."""
        values = {"id": row.id, "xmin": row.xmin, "reach": reach.owner}
        return outbox.change(database, self._delete, values, event, also)
