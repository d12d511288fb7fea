"""Finds a page of a long list: in the index of its order where that serves the filters, else within bounds.

The planner's statistics say how many rows another index would give. If they are few, all are read; else the next
`MOST` rows in the order are looked through, besides those that an `offset` passes over. Where these have too few that
match, and the index too many, a page ends early: its `next` is the place behind the last row that was looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache, cached_property
from operator import itemgetter
from typing import Any, NamedTuple
from typing import cast as cast_to

from pydantic import BaseModel
from sqlalchemy import (
    CTE,
    BindParameter,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, TSQUERY, aggregate_order_by
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import iterate

from servicekit.database.engine import Database, DatabaseTooSlow
from servicekit.database.statement import Statement
from servicekit.web.paging import MOST, SortedQuery, Sorting, too_far
from servicekit.web.sql_encoders import sql_encoder_of
from servicekit.wire.envelope import Written

#: For how long an index that gives rows in no order is searched.
SEARCH_SECONDS = 0.25
#: The most bytes of JSON that one page may have; one row never has more.
LARGEST_PAGE = 1024 * 1024

Condition = ColumnElement[bool]


class RowWriter:
    """Writes the rows of a page, one like the other: `row` is the JSON of each, `joined` what else that is read from.

    Keep it: the SQL of `row` takes longer to make than the rest of a list's statements, and is made once. Its constants
    are no parameters.
    """

    def __init__(
        self,
        row: Callable[[FromClause], ColumnElement[str]],
        joined: Callable[[FromClause], FromClause] = lambda page: page,
    ) -> None:
        self.row = row
        self.joined = joined
        #: its text, and its parameters
        self.sql: tuple[str, list[BindParameter[Any]]] | None = None


@cache
def _writer_of(view: type[BaseModel]) -> RowWriter:
    return RowWriter(lambda page: sql_encoder_of(view, page.c))


class _Row(ColumnElement[str]):
    """The JSON of a row of a page, which has the same name in each statement."""

    inherit_cache = False

    def __init__(self, writer: RowWriter, page: FromClause) -> None:
        self.writer = writer
        self.page = page
        self.type = Text()


@compiles(_Row)
def _sql_of(row: _Row, compiler: SQLCompiler, **options: Any) -> str:
    if row.writer.sql is None:
        expression = row.writer.row(row.page)
        parameters = [each for each in iterate(expression) if isinstance(each, BindParameter)]
        if any(each.unique for each in parameters):
            raise TypeError("a constant of a row would be a parameter, which has another name in each statement")
        row.writer.sql = compiler.process(expression, **options), parameters
    text, parameters = row.writer.sql
    for each in parameters:
        # So that the statement has them.
        compiler.process(each)
    return text


class Found(NamedTuple):
    """A page: its rows as a JSON array, how many they are, and the place behind it if there may be more."""

    rows: Written
    shown: int
    #: How many match in all, or, if not exact, at least; None: not counted.
    total: int | None
    total_is_exact: bool
    #: What the rows that match add up to, if `total` is exact.
    sum: Decimal | None
    next: str | None


@dataclass
class Filters:
    """The conditions of a list, on parameters.

    The index of the order gives only rows for which the `ordered` hold, and these are looked through for those that
    meet the `others` too. Each of the others has an index of its own. A `part` is found by `trigrams`, an expression
    with an index, for the values that servicekit.database.trigrams gives.
    """

    ordered: list[Condition] = field(default_factory=list)
    others: list[Condition] = field(default_factory=list)
    #: Of these exactly one holds, too, for each row in the index of the order. Counted one by one: an index alone may
    #: tell how many there are of one.
    either: list[Condition] = field(default_factory=list)
    part: Condition | None = None
    trigrams: ColumnElement[Any] | None = None
    #: Parts of the rows for which the `others` hold, no row in two of them, of which the planner has better statistics:
    #: it expects no fewer than these together.
    known: list[Condition] = field(default_factory=list)
    #: Look through all rows for which the `others` hold, however many, so that they are counted.
    whole: bool = False
    #: How many rows are looked through in place of `MOST`; fewer where they are wide.
    most: int | None = None
    #: Of the others the statistics tell little: their index is searched only if they promise no more than that.
    vague: bool = False

    @property
    def all_ordered(self) -> list[Condition]:
        return [*self.ordered, or_(*self.either)] if self.either else self.ordered


class SortedList:
    """A table's rows in one order, filtered in one way. Keep it: its statements take longer to make than to run.

    `view` is that of a row whose columns have its names, or what writes a row. `continued`: behind the place of an
    `after`. `counted`: with the total and, of the amount `added_up`, the sum.
    """

    def __init__(
        self,
        model: type[DeclarativeBase],
        view: type[BaseModel] | RowWriter,
        sorting: Sorting,
        sort: str,
        filters: Filters,
        *,
        continued: bool,
        counted: bool,
        added_up: InstrumentedAttribute[Decimal] | None = None,
    ) -> None:
        self._table = cast_to(Table, model.__table__)
        self._writer = _writer_of(view) if isinstance(view, type) else view
        self._sorting = sorting
        self._sort = sort
        self._filters = filters
        self._most = min(filters.most or MOST, MOST)
        self._behind = [sorting.behind(sort)] if continued else []
        self._counted = counted
        self._added_up = added_up
        #: By how many terms are sought.
        self._estimates: dict[int, Statement] = {}

    def find(self, database: Database, query: SortedQuery, values: Mapping[str, Any]) -> Found:
        """Return a page. `values` are those of the filters and of the place.

        Raises `Invalid` for an `offset` that goes beyond all rows that were looked at.
        """
        # "searched": up to so many rows an index that gives them in no order is searched, half as many again as it is
        # expected to have at most.
        values = {**values, "limit": query.limit, "offset": query.offset, "searched": self._most * 3 // 2}
        if not self._filters.others and self._filters.part is None:
            return self._page(database.rows(self._far if query.offset else self._plain, values))
        if self._filters.whole:
            return self._page(database.rows(self._indexes[0], values))
        whole, *expected = self._expected(database, values)
        few, index = min(zip(expected, self._indexes, strict=True), key=itemgetter(0))
        near = None
        if few > self._most:
            # Up to twice as many if what comes next in the order does not do.
            values["searched"] = 2 * self._most
            is_too_much = self._filters.vague or few > values["searched"]
            if self._filters.part is not None and index is self._indexes[-1] and len(values["terms"]) > 1:
                # All terms together are rarer than the rarest of them, which was expected.
                values["searched"] = self._most
                is_too_much = few > 2 * MOST
            # Where they lie evenly, there are so many among these.
            if is_too_much or few * self._most > query.limit * whole:
                near = database.rows(self._near, values)
                if is_too_much or near[0].found > query.limit or near[0].reached_the_end:
                    return self._looked_through(near, query)
        with suppress(DatabaseTooSlow):
            rows = database.rows(index, values, within=SEARCH_SECONDS)
            if not rows[0].has_more:
                return self._page(rows)
        return self._looked_through(near or database.rows(self._near, values), query)

    def _expected(self, database: Database, values: Mapping[str, Any]) -> Iterator[float]:
        """How many rows the planner expects to find, first in the whole table, then in each of the indexes."""
        terms = {f"term{number}": term for number, term in enumerate(values.get("terms", ()))}
        if len(terms) not in self._estimates:
            self._estimates[len(terms)] = self._estimate(list(terms))
        statement = self._estimates[len(terms)]
        plan = database.once(_EXPLAIN + statement.text, {**values, **terms})[0][0][0]["Plan"]
        whole, *rows = [each["Plan Rows"] for each in plan.get("Plans", [plan])]
        # It leaves out what contradicts itself. Where the others do, each part of them does, too.
        known = len(rows) - len(terms) - bool(self._filters.others)
        if known < 0:
            # There is no such row.
            whole, rows, known = math.inf, [0] * (len(terms) + 1), 0
        yield whole
        at_least = sum(rows.pop() for _ in range(known))
        if self._filters.others:
            yield max(rows.pop(), at_least)
        if self._filters.part is not None:
            # The whole of a small table is looked through at once.
            yield min(rows) if whole > MOST else math.inf

    def _page(self, rows: list[Any]) -> Found:
        """A page for which all rows that match were there to choose from."""
        (row,) = rows
        return self._found(row, exact=self._counted and row.total <= MOST, more=row.found > row.shown)

    def _looked_through(self, rows: list[Any], query: SortedQuery) -> Found:
        """A page of those that come next in the order and were looked through."""
        (row,) = rows
        more = row.found > row.shown
        if not more and not row.reached_the_end:
            if row.hits < query.offset:
                raise too_far("this search goes no further: be more specific, or")
            row, more = row._replace(id=row.last_id, key=row.last_key), True
        return self._found(row, exact=self._counted and row.counted_all and row.total <= MOST, more=more)

    def _found(self, row: Any, *, exact: bool, more: bool) -> Found:
        total = min(row.total, MOST) if self._counted else None
        place = self._sorting.next(self._sort, row.id, row.key) if more else None
        return Found(Written(row.rows), row.shown, total, exact, row.sum if exact else None, place)

    @cached_property
    def _plain(self) -> Statement:
        rows = select(self._table).where(*self._filters.all_ordered, *self._behind)
        return self._whole(_limited(rows.order_by(*self._sorting.order(self._sort))).subquery("page"))

    @cached_property
    def _far(self) -> Statement:
        """Passes over rows in the index, which has their ids: to read each would take ten times as long."""
        ids = select(self._table.c.id).where(*self._filters.all_ordered, *self._behind)
        return self._whole(self._rows_of(_limited(ids.order_by(*self._sorting.order(self._sort)))))

    def _whole(self, page: FromClause) -> Statement:
        rows = select(self._amount()).select_from(self._table).where(*self._filters.ordered)
        most = _inline(str(MOST + 1))
        parts = [rows.where(one).limit(most).subquery() for one in self._filters.either or [true()]]
        counted = union_all(*(select(part.c.amount) for part in parts)).limit(most)
        return self._statement(page, *self._totals(self._tally(counted.subquery("counted"), "totals")))

    @cached_property
    def _near(self) -> Statement:
        """Looks through the rows that come next in the order, whatever they are."""
        most = _inline(str(self._most))
        looked = self._window("looked", self._behind, most + _OFFSET)
        tally = self._tally(looked, "tally")
        hits = _of(tally, "total")
        last = self._in_order(select(looked.c.id, looked.c.key), looked, back=True).limit(_inline("1")).cte("last")
        # To find the last takes as long as to count them, and a full page does not need it.
        is_full = hits > _LIMIT + _OFFSET
        ends: list[ColumnElement[Any]] = [
            (_of(tally, "looked") < most + _OFFSET).label("reached_the_end"),
            hits.label("hits"),
            case((is_full, null()), else_=select(cast(last.c.id, Text)).scalar_subquery()).label("last_id"),
            case((is_full, null()), else_=_of(last, "key")).label("last_key"),
        ]
        if self._counted:
            # From the beginning, on each page.
            first = self._tally(self._window("first", [], most), "totals") if self._behind else tally
            counted_all = _of(first, "looked") < (most if self._behind else most + _OFFSET)
            ends += [counted_all.label("counted_all"), *self._totals(first)]
        return self._statement(self._chosen(looked, looked.c.hit), *ends)

    @cached_property
    def _indexes(self) -> list[Statement]:
        """Look through all rows that an index gives, in no order."""
        filters = self._filters
        found = [self._indexed(*filters.others)] if filters.others else []
        return found if filters.part is None else [*found, self._indexed(self._has("trigrams"))]

    def _estimate(self, terms: list[str]) -> Statement:
        """For EXPLAIN: all rows, and what each index gives; last the others, of which the planner chooses, and parts of
        them."""
        filters = self._filters
        wanted = [*([self._has(name)] for name in terms), *([filters.others] if filters.others else [])]
        wanted += [[one] for one in filters.known]
        rows = [select(_inline("1").label("row")).select_from(self._table).where(*conditions) for conditions in wanted]
        return Statement(union_all(select(_inline("1").label("row")).select_from(self._table), *rows))

    def _has(self, name: str) -> Condition:
        assert self._filters.trigrams is not None
        return self._filters.trigrams.op("@@")(cast(bindparam(name, type_=Text), TSQUERY))

    def _indexed(self, *conditions: Condition) -> Statement:
        columns = [*self._looked_at(*self._filters.all_ordered), and_(true(), *self._behind).label("behind")]
        # Materialized, or the planner may go along the order after all.
        rows = select(*columns).where(*conditions)
        if not self._filters.whole:
            rows = rows.limit(_SEARCHED + _inline("1"))
        looked = rows.cte("looked").prefix_with("MATERIALIZED")
        tally = self._tally(looked, "totals")
        has_more = _of(tally, "looked") > _SEARCHED
        # No page is made of a part of them.
        complete = true() if self._filters.whole else not_(has_more)
        chosen = self._chosen(looked, and_(looked.c.hit, looked.c.behind, complete))
        return self._statement(chosen, has_more.label("has_more"), *self._totals(tally))

    def _window(self, name: str, behind: list[Condition], most: ColumnElement[int]) -> CTE:
        rows = select(*self._looked_at()).where(*self._filters.all_ordered, *behind)
        return rows.order_by(*self._sorting.order(self._sort)).limit(most).cte(name)

    def _looked_at(self, *more: Condition) -> list[ColumnElement[Any]]:
        part = [] if self._filters.part is None else [self._filters.part]
        hit = and_(*more, *self._filters.others, *part).label("hit")
        return [self._table.c.id, self._key(self._table).label("key"), self._amount(), hit]

    def _amount(self) -> ColumnElement[Any]:
        return (_NOTHING if self._added_up is None else self._added_up).label("amount")

    def _chosen(self, looked: CTE, hit: Condition) -> FromClause:
        """The page of the hits, whose rows are read again by their ids."""
        return self._rows_of(_limited(self._in_order(select(looked.c.id).where(hit), looked)))

    def _rows_of(self, ids: Select[Any]) -> FromClause:
        chosen = ids.subquery("chosen")
        return select(self._table).join(chosen, chosen.c.id == self._table.c.id).subquery("page")

    def _tally(self, rows: FromClause, name: str) -> CTE:
        """How many rows were looked at, how many of them are hits (all, where no column says so), and what these add up
        to."""
        hits = [rows.c.hit] if "hit" in rows.c else []
        total, amount = (one.filter(*hits) for one in (func.count(), func.sum(rows.c.amount)))
        added = _NOTHING if self._added_up is None else func.coalesce(amount, _inline("0.00"))
        columns = (func.count().label("looked"), total.label("total"), added.label("sum"))
        return select(*columns).select_from(rows).cte(name)

    def _totals(self, tally: CTE) -> list[ColumnElement[Any]]:
        return [_of(tally, name).label(name) for name in ("total", "sum")] if self._counted else []

    def _statement(self, page: FromClause, *more: ColumnElement[Any]) -> Statement:
        """One row: the page as JSON, and more. Of `page`, which has one row more than asked for, only as many as are
        small enough are written."""
        key = self._key(page)
        place = func.row_number().over(order_by=self._sorting.order(self._sort, page))
        columns = [page.c.id, key.label("key"), _Row(self._writer, page).label("row"), place.label("place")]
        written = select(*columns).select_from(self._writer.joined(page)).subquery("written")
        size = func.sum(func.octet_length(written.c.row)).over(order_by=written.c.place)
        shown = and_(written.c.place <= _LIMIT, size <= _inline(str(LARGEST_PAGE)))
        sized = select(written, shown.label("shown")).subquery("sized")
        array = func.string_agg(sized.c.row, aggregate_order_by(_inline("','"), sized.c.place))

        def last(column: ColumnElement[Any]) -> ColumnElement[Any]:
            values = func.array_agg(aggregate_order_by(column, sized.c.place.desc()), type_=ARRAY(column.type))
            return values.filter(sized.c.shown)[_inline("1")]

        columns = [
            func.concat(_inline("'['"), array.filter(sized.c.shown), _inline("']'")).label("rows"),
            func.count().label("found"),
            func.count().filter(sized.c.shown).label("shown"),
            last(cast(sized.c.id, Text)).label("id"),
            last(sized.c.key).label("key"),
        ]
        if not self._counted:
            columns.append(_NOTHING.label("sum"))
        return Statement(select(*columns, *more).select_from(sized))

    def _key(self, rows: FromClause) -> ColumnElement[Any]:
        column: ColumnElement[Any] = rows.c[self._sorting.column(self._sort).key]
        return column

    def _in_order(self, rows: Select[Any], looked: CTE, *, back: bool = False) -> Select[Any]:
        descending = self._sort.startswith("-") != back
        return rows.order_by(*(column.desc() if descending else column.asc() for column in (looked.c.key, looked.c.id)))


# With parallel workers a plan has other parts.
_EXPLAIN = "SET LOCAL max_parallel_workers_per_gather = 0; EXPLAIN (FORMAT JSON) "
_NOTHING: ColumnElement[Any] = literal_column("NULL")
_LIMIT, _OFFSET, _SEARCHED = (bindparam(name, type_=Integer()) for name in ("limit", "offset", "searched"))


def _inline(sql: str) -> ColumnElement[Any]:
    """A constant that is no parameter."""
    return literal_column(sql)


def _limited(rows: Select[Any]) -> Select[Any]:
    return rows.limit(_LIMIT + _inline("1")).offset(_OFFSET)


def _of(row: CTE, name: str) -> ColumnElement[Any]:
    return select(row.c[name]).scalar_subquery()
