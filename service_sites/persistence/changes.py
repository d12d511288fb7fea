"""The queries of a site's feed: what lies in a stretch of its changes, as somebody sees it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Integer, Select, Text, bindparam, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import ARRAY

from service_sites.domain.people import SiteRole
from service_sites.persistence.item_rows import writer
from service_sites.persistence.items import REACHED, is_visible
from service_sites.tables import Comment, Removal, WorkItem
from servicekit.database.engine import Database, Prepared
from servicekit.database.statement import Statement
from servicekit.identity.reach import Reach
from servicekit.web.lists import LARGEST_PAGE

_AUDIENCES = bindparam("audiences", type_=ARRAY(Text))
#: How many bytes a row counts, by its columns.
_Octets = Callable[[Any], ColumnElement[int]]


class Stretch(NamedTuple):
    """A part of a site's changes, in their order, for somebody: those behind `since`, up to `until`, so many."""

    site_id: UUID
    user_id: UUID | None
    since: int
    until: int
    limit: int


class Part(NamedTuple):
    """What of one kind lies in a stretch."""

    #: In the order of their `change_seq`, which is unique among them.
    rows: list[Any]
    #: `rows` is complete up to this change.
    until: int


class _Query:
    """Finds a part of a stretch. Each connection keeps its plan: to plan it takes longer than to run it."""

    def __init__(
        self, name: str, seen: Select[Any], table: type[Comment | Removal | WorkItem], octets: _Octets
    ) -> None:
        """`seen` selects rows of the table, of which `octets` is what each counts against the size of an answer."""
        found = (
            seen.where(
                table.site_id == bindparam("site_id"),
                table.change_seq > bindparam("since", type_=BigInteger()),
                table.change_seq <= bindparam("until", type_=BigInteger()),
            )
            .order_by(table.change_seq)
            .limit(bindparam("limit", type_=Integer()) + literal_column("1"))
            .subquery("found")
        )
        own = octets(found.c)
        total = func.sum(own).over(order_by=found.c.change_seq)
        sized = select(*found.c, total.label("size"), (total - own).label("before")).subquery("sized")
        fits = sized.c.before < literal_column(str(LARGEST_PAGE))
        self._statement = Statement(select(sized).where(fits).order_by(sized.c.change_seq))
        self._prepared = Prepared.of(name, self._statement.text, **self._statement.types())

    def part(self, database: Database, stretch: Stretch, *, reach: Reach, **values: Any) -> Part:
        given = {**stretch._asdict(), **values, "reach": reach.owner}
        rows = database.rows(self._statement, given, prepared=self._prepared)
        shown = rows[: stretch.limit]
        is_whole = len(rows) <= stretch.limit and (not rows or rows[-1].size < LARGEST_PAGE)
        return Part(shown, stretch.until if is_whole else shown[-1].change_seq)


@cache
def _items(is_member: bool) -> _Query:
    view = writer(frozenset(SiteRole) if is_member else None)
    table = WorkItem.__table__
    columns: list[Any] = [WorkItem.change_seq, cast(WorkItem.id, Text).label("id"), view.row(table).label("item")]
    seen = select(*columns).select_from(view.joined(table)).where(REACHED)
    name = "changed_items_of_member" if is_member else "changed_items"
    return _Query(name, seen, WorkItem, lambda row: func.octet_length(row.item))


_COMMENT: list[Any] = [*Comment.__table__.columns]
_COMMENTS = _Query(
    "changed_comments",
    select(*_COMMENT).where(Comment.audience == _AUDIENCES.any_(), is_visible(Comment.item_id)),
    Comment,
    lambda row: func.octet_length(cast(func.to_json(row.text), Text)),
)
_REMOVED: list[Any] = [Removal.change_seq, Removal.item_id]
_REMOVALS = _Query(
    "changed_visibility",
    select(*_REMOVED).where(Removal.audience == _AUDIENCES.any_(), ~is_visible(Removal.item_id)).distinct(),
    Removal,
    lambda row: literal_column("0", Integer()),
)


def items(database: Database, stretch: Stretch, now: datetime, may_change: bool, *, reach: Reach) -> Part:
    """The items that somebody sees and whose last change lies in a stretch, each as JSON for `with_steps`.

    `may_change`: they may change anything at all.
    """
    return _items(reach.owner is not None).part(database, stretch, reach=reach, now=now, may_change=may_change)


def comments(database: Database, stretch: Stretch, audiences: Collection[str], *, reach: Reach) -> Part:
    """What was said in a stretch, and not changed since, to some of these audiences, of items that somebody sees."""
    return _COMMENTS.part(database, stretch, reach=reach, audiences=list(audiences))


def removals(database: Database, stretch: Stretch, audiences: Collection[str], *, reach: Reach) -> Part:
    """The items that somebody of these audiences sees no longer since a stretch, each with when that was."""
    return _REMOVALS.part(database, stretch, reach=reach, audiences=list(audiences))
