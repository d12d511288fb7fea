"""How lists continue: the `next` of a page, sent as `after`, gives the rows behind the last one of that page.

It names a place in the order, not a number of rows (the seek method, https://use-the-index-luke.com/no-offset): what
others add or remove meanwhile makes no row come twice or be left out, and the last page costs no more than the first.
In a list that is always the newest first by id it is an id; in one that can be sorted, a text made by `Sorting`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field
from sqlalchemy import ColumnElement, FromClause, Uuid, bindparam, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from servicekit.web.schemas import (
    Id,
    PageQuery,
    PageView,
    QueryFlag,
    QueryInt,
    Timestamp,
    View,
    not_before,
    parse_date,
    parse_timestamp,
    parse_uuid,
)
from servicekit.wire.errors import Invalid

#: As far as `offset` reaches, and as a list is counted: more takes ever longer, and nobody turns so many pages.
MOST = 10_000
_AFTER = "the `next` of the page before; better than a large offset"
_READ_ON = "send the `next` of a page as `after`"
_NEXT = "send it as `after` to get the next page; null on the last"
#: A name of 200 characters, folded and encoded, has up to 3,200.
_MAX_PLACE = 4000
_PLACE = re.compile(r"(-?[a-z_]+) (\S+) (.*)", re.DOTALL)
_MONEY = re.compile(r"[0-9]{1,12}(\.[0-9]{1,4})?")
_INTEGER = re.compile(r"-?[0-9]{1,9}")


def _query_time(value: Any) -> Any:
    # The plus sign of an offset that was not percent-encoded arrives as a space.
    return value.replace(" ", "+") if isinstance(value, str) else value


#: A `Timestamp` in a query string.
QueryTime = Annotated[Timestamp, BeforeValidator(_query_time)]


def too_far(why: str) -> Invalid:
    """The refusal of an `offset`; says what else to do."""
    return Invalid.field("offset", f"{why} {_READ_ON}")


def _reachable(value: int) -> int:
    if value > MOST:
        raise ValueError(f"must be at most {MOST}; to go further, {_READ_ON}")
    return value


#: An `offset` into a list that can be read on by `after`.
Offset = Annotated[
    QueryInt,
    Field(ge=0, description="how many to pass over first", json_schema_extra={"maximum": MOST}),
    AfterValidator(_reachable),
]


class NewestQuery(PageQuery):
    """Which part is wanted of a list that is always the newest first, by id."""

    offset: Offset = 0
    after: Id | None = Field(default=None, description=_AFTER)


class NewestPage(PageView):
    """One page of a list that is always the newest first, by id."""

    next: UUID | None = Field(description=_NEXT)


class SortedQuery(PageQuery):
    """Which part of a list is wanted, and in which order. Subclasses narrow `sort` to their fields."""

    offset: Offset = 0
    sort: str = "-created_at"
    after: str | None = Field(
        default=None,
        max_length=_MAX_PLACE,
        description=f"{_AFTER}; with the same `sort`",
        # Only said: `Sorting.place` refuses everything else in its own words.
        json_schema_extra={"pattern": "^[A-Za-z0-9_-]*$"},
    )
    total: QueryFlag = Field(default=True, description="false: nothing is counted, which is faster for long lists")
    created_from: QueryTime | None = Field(default=None, description="created at this moment or later")
    created_to: Annotated[QueryTime, not_before("created_from")] | None = Field(
        default=None, description="created before this moment"
    )


class SortedPage(View):
    """One page of a list in an order that was chosen; subclasses add the list, named after the resource."""

    total: int | None = Field(description="how many match the filters; null if `total=false`", ge=0)
    total_is_exact: bool = Field(description="false: at least `total` match, or nothing was counted")
    limit: int
    offset: int
    next: str | None = Field(description=_NEXT)


@dataclass(frozen=True)
class _Form:
    """How a value of a sorted column is written in a place, and read again; reading raises ValueError."""

    write: Callable[[Any], str]
    read: Callable[[str], Any]


def _read_text(text: str) -> str:
    if "\0" in text:
        raise ValueError("PostgreSQL has no such text")
    return text


def _read_money(text: str) -> Decimal:
    if not _MONEY.fullmatch(text):
        raise ValueError("no amount of money")
    return Decimal(text)


def _read_integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError("no integer")
    return int(text)


_FORMS = {
    datetime: _Form(datetime.isoformat, parse_timestamp),
    Decimal: _Form(str, _read_money),
    str: _Form(str, _read_text),
    date: _Form(date.isoformat, parse_date),
    int: _Form(str, _read_integer),
}


class Sorting:
    """The fields by which a list can be sorted, each ascending or, with a minus sign, descending; equal ones by id.

    The columns are never null. A text is sorted by the collation of its column.
    """

    def __init__(
        self,
        id: InstrumentedAttribute[UUID],
        created_at: InstrumentedAttribute[datetime],
        **more: InstrumentedAttribute[Any],
    ) -> None:
        self._id = id
        self._created_at = created_at
        self._columns: dict[str, InstrumentedAttribute[Any]] = {"created_at": created_at, **more}

    def order(self, sort: str, rows: FromClause | None = None) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        """For ORDER BY; of a subquery's rows, if given."""
        keys = [self.column(sort), self._id] if rows is None else [rows.c[self.column(sort).key], rows.c[self._id.key]]
        first, second = (key.desc() if sort.startswith("-") else key.asc() for key in keys)
        return first, second

    def filters(self, given: Collection[str]) -> list[ColumnElement[bool]]:
        """The conditions of `created_from` and `created_to`, if given, on parameters of these names."""
        conditions = {
            "created_from": self._created_at >= bindparam("created_from", type_=self._created_at.type),
            "created_to": self._created_at < bindparam("created_to", type_=self._created_at.type),
        }
        return [condition for name, condition in conditions.items() if name in given]

    def behind(self, sort: str) -> ColumnElement[bool]:
        """The condition of `after`, on the parameters that `place` returns."""
        column = self.column(sort)
        row = tuple_(column, self._id)
        last = tuple_(bindparam("after_value", type_=column.type), bindparam("after_id", type_=Uuid()))
        return row < last if sort.startswith("-") else row > last

    def place(self, query: SortedQuery) -> dict[str, Any]:
        """The parameters of `behind`; empty without `after`. Raises `Invalid` for one that `next` did not return."""
        if query.after is None:
            return {}
        try:
            text = base64.b64decode(query.after + "=" * (-len(query.after) % 4), b"-_", validate=True).decode("utf-8")
            sort, row_id, value = _PLACE.fullmatch(text).groups()  # type: ignore[union-attr]  # None: AttributeError
            if sort == query.sort:
                form = _FORMS[self.column(sort).type.python_type]
                return {"after_value": form.read(value), "after_id": parse_uuid(row_id)}
        except (ValueError, AttributeError) as exc:
            raise Invalid.field("after", "must be the `next` of a page of this list") from exc
        raise Invalid.field("after", "belongs to another `sort`: send both as they were")

    def next(self, sort: str, row_id: UUID | str, key: Any) -> str:
        """The place behind a row with this id and value of the column."""
        value = _FORMS[self.column(sort).type.python_type].write(key)
        return base64.urlsafe_b64encode(f"{sort} {row_id} {value}".encode()).decode("ascii").rstrip("=")

    def column(self, sort: str) -> InstrumentedAttribute[Any]:
        """The column that is sorted by."""
        return self._columns[sort.removeprefix("-")]
