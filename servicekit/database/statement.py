"""SQLAlchemy's statements compiled once, for `Database.once`: compiling one takes longer than running it."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Select, Uuid, bindparam, cast, or_
from sqlalchemy.dialects.postgresql.psycopg2 import dialect
from sqlalchemy.sql.dml import ReturningDelete, ReturningInsert, ReturningUpdate

_DIALECT = dialect()  # type: ignore[no-untyped-call]
_Returning = ReturningInsert[Any] | ReturningUpdate[Any] | ReturningDelete[Any]
_ESCAPES = str.maketrans({wildcard: f"/{wildcard}" for wildcard in "%_/"})


class Statement:
    """A SELECT, or a change with RETURNING, as psycopg2 takes it, whose rows have the names of its columns.

    Values pass to and from the driver without SQLAlchemy, so only types that psycopg2 itself knows will do.
    """

    def __init__(self, statement: Select[Any] | CompoundSelect[Any] | _Returning) -> None:
        compiled = statement.compile(dialect=_DIALECT)
        self.text = str(compiled)
        self._types = {name: bind.type for bind, name in compiled.bind_names.items()}
        self._constants = dict(compiled.params)
        #: A type of which only this object knows the fields.
        self._row: Any = namedtuple("_row", [column.key for column in statement.exported_columns])  # type: ignore[misc]

    def parameters(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters: these and the statement's own constants."""
        return {**self._constants, **values}

    def types(self) -> dict[str, str]:
        """PostgreSQL's name for the type of each parameter, all of which must have one."""
        return {name: type_.compile(_DIALECT) for name, type_ in self._types.items()}

    def named(self, rows: Iterable[tuple[Any, ...]]) -> list[Any]:
        """The rows as named tuples."""
        return list(map(self._row._make, rows))


def containing(part: str) -> str:
    """The pattern of all texts with this part, for LIKE with `/` as its escape character."""
    return f"%{part.translate(_ESCAPES)}%"


def within_reach(owner: Any) -> ColumnElement[bool]:
    """The condition that a row's owner is the parameter `reach`, or that this is null, for a row found by its key.

    A list adds a condition only for an owner, lest its plan lose an index.
    """
    reach = bindparam("reach", type_=Uuid())
    return or_(cast(reach, Uuid()).is_(None), owner == reach)
