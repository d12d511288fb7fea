"""The queries of a site's feed: what lies in a stretch of its changes, as somebody sees it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Integer, Select, Text, bindparam, case, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import ARRAY

from service_sites.domain.people import SiteRole
from service_sites.persistence.item_rows import writer
from service_sites.persistence.items import REACHED, Condition, is_visible
from service_sites.tables import Comment, Removal, WorkItem
from servicekit.database.engine import Database, Prepared
from servicekit.database.statement import Statement
from servicekit.identity.reach import Reach
from servicekit.web.lists import LARGEST_PAGE

_AUDIENCES = bindparam("audiences", type_=ARRAY(Text))


class Stretch(NamedTuple):
    """A part of a site's changes, in their order, for somebody: those behind `since`, up to `until`, so many."""

    site_id: UUID
    user_id: UUID | None
    since: int
    until: int
    limit: int


class Part(NamedTuple):
    """What of one kind lies in a stretch."""

    #: Each with its `change_seq`, which no other of them has, in their order.
    rows: list[Any]
    #: Up to this change these are all.
    until: int


class _Query:
    """Finds a part of a stretch, of which the connection keeps the plan: to plan it takes longer than to run it."""

    def __init__(
        self, name: str, rows: Select[Any], of: type[Comment | Removal | WorkItem], text: str | None = None
    ) -> None:
        """Of one table, whose column `text` is what makes them large."""
        rows = (
            rows.where(
                of.site_id == bindparam("site_id"),
                of.change_seq > bindparam("since", type_=BigInteger()),
                of.change_seq <= bindparam("until", type_=BigInteger()),
            )
            .order_by(of.change_seq)
            .limit(bindparam("limit", type_=Integer()) + literal_column("1"))
        )
        if text is not None:
            page = rows.subquery("page")
            size = func.sum(func.octet_length(page.c[text])).over(order_by=page.c.change_seq)
            fits = case((size <= literal_column(str(LARGEST_PAGE)), page.c[text])).label(text)
            rows = select(*(fits if column.key == text else column for column in page.c)).order_by(page.c.change_seq)
        self._text = text
        self._statement = Statement(rows)
        self._prepared = Prepared.of(name, self._statement.text, **self._statement.types())

    def part(self, database: Database, stretch: Stretch, *, reach: Reach, **values: Any) -> Part:
        given = {**stretch._asdict(), **values, "reach": reach.owner}
        rows = database.rows(self._statement, given, prepared=self._prepared)
        shown = [row for row in rows[: stretch.limit] if self._text is None or getattr(row, self._text) is not None]
        return Part(shown, stretch.until if len(shown) == len(rows) else shown[-1].change_seq)


def _heard(audience: Any) -> Condition:
    condition: Condition = audience == _AUDIENCES.any_()
    return condition


@cache
def _items(is_member: bool) -> _Query:
    view = writer(frozenset(SiteRole) if is_member else None)
    table = WorkItem.__table__
    columns: list[Any] = [WorkItem.change_seq, cast(WorkItem.id, Text).label("id"), view.row(table).label("item")]
    seen = select(*columns).select_from(view.joined(table)).where(REACHED)
    return _Query("changed_items_seen" if is_member else "changed_items", seen, WorkItem, "item")


_COMMENT: list[Any] = [*Comment.__table__.columns]
_COMMENTS = _Query(
    "changed_comments",
    select(*_COMMENT).where(_heard(Comment.audience), is_visible(Comment.item_id)),
    Comment,
    "text",
)
_REMOVED: list[Any] = [Removal.change_seq, Removal.item_id]
_REMOVALS = _Query(
    "removals", select(*_REMOVED).where(_heard(Removal.audience), ~is_visible(Removal.item_id)).distinct(), Removal
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
