"""Every query about orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Integer, Text, bindparam, cast, exists, func, insert, select, true, update
from sqlalchemy.orm import Session

from service_orders.domain import OPEN, USER_DELETED, OrderStatus
from service_orders.tables import Base, Order
from servicekit.database.engine import Database
from servicekit.database.statement import Statement, containing, within_reach
from servicekit.events import outbox, tombstones
from servicekit.events.cloudevents import Event
from servicekit.events.rows import RowsById
from servicekit.identity.reach import Reach
from servicekit.web.idempotency import RequestKey
from servicekit.web.paging import SortedQuery, Sorting

#: The most bytes of JSON that the items of one page may have; one order never has more.
LARGEST_PAGE = 1024 * 1024
SORTING = Sorting(Order.id, Order.created_at, total_amount=Order.total_amount)


_VALUES = {column.key: bindparam(column.key, type_=column.type) for column in Order.__table__.columns}
_TOMBSTONES = Base.metadata.tables["tombstones"]
_DELETED = exists().where(_TOMBSTONES.columns["id"] == bindparam("user_id"))
_ADD = Statement(
    insert(Order)
    .from_select(
        list(_VALUES),
        select(*_VALUES.values()).where(~_DELETED, within_reach(_VALUES["user_id"])),
    )
    .returning(Order.id)
)


#: Columns of an order that are shown.
_SHOWN = [column for column in Order.__table__.columns if column.key != "products_key"]
ROWS = RowsById(Order.id, *_SHOWN, owner=Order.user_id)


def add(
    database: Database, values: Mapping[str, Any], event: Event, key: RequestKey | None, *, reach: Reach
) -> UUID | None:
    """Insert an order as `outbox.make` does; None if its user is deleted."""
    values = {**values, **tombstones.kept(values["user_id"]), "reach": reach.owner}
    return outbox.make(database, _ADD, values, event, key, before=tombstones.KEEP)


def cancel_open(session: Session, user_id: UUID, moment: datetime, limit: int) -> Sequence[Any]:
    """Cancel at most `limit` open orders of a deleted user; return them without their items, with `old_status`."""
    found = select(Order.id, Order.status).where(Order.user_id == user_id, Order.status.in_(OPEN))
    found_open = found.order_by(Order.id).limit(limit).with_for_update().cte()
    cancel = update(Order).where(Order.id == found_open.c.id)
    cancel = cancel.values(
        status=OrderStatus.CANCELLED,
        cancel_reason=USER_DELETED,
        updated_at=func.greatest(moment, Order.created_at),
    )
    shown = [column for column in _SHOWN if column.key != "items"]
    return session.connection().execute(cancel.returning(*shown, found_open.c.status.label("old_status"))).all()


class OrdersFound(NamedTuple):
    """One page: rows whose ids and items are text, the items as JSON; how many orders match in all, and their sum
    (None: not counted); the place behind the page if more follow."""

    orders: Sequence[Any]
    total: int | None
    total_amount: Decimal | None
    next: str | None


def search(
    database: Database, page: SortedQuery, *, user_id: UUID | None, status: str | None, part: str | None
) -> OrdersFound:
    """Return one page of the matching orders in one round trip; shorter than `page.limit` if their items would exceed
    `LARGEST_PAGE`.

    `part` is in the form of servicekit.wire.caseless. Raises `Invalid` as `Sorting.place` does.
    """
    place = SORTING.place(page)
    which = {
        "user_id": user_id,
        "status": status,
        "product": None if part is None else containing(part),
        "created_from": page.created_from,
        "created_to": page.created_to,
    }
    which = {name: value for name, value in which.items() if value is not None}
    statement = _search(page.sort, bool(place), page.total, *which)
    rows = database.rows(statement, {**which, **place, "limit": page.limit + 1, "offset": page.offset})
    total, total_amount = (rows[0].total, rows[0].sum) if page.total else (None, None)
    # Totals without orders are a row without an order.
    orders = rows if rows and rows[0].id is not None else []
    shown = orders[: page.limit]
    more = bool(orders) and orders[0].found > len(shown)
    return OrdersFound(shown, total, total_amount, SORTING.next(page.sort, shown[-1]) if more else None)


@cache
def _search(sort: str, continued: bool, counted: bool, *given: str) -> Statement:
    """The statement of `search`, cached: building it takes longer than running it."""
    columns = Order.__table__.columns
    conditions = SORTING.filters(given)
    conditions += [columns[name] == bindparam(name) for name in ("user_id", "status") if name in given]
    if "product" in given:
        conditions.append(Order.products_key.like(bindparam("product"), escape="/"))
    amount = func.coalesce(func.sum(Order.total_amount), Decimal("0.00"))
    totals = select(func.count().label("total"), amount.label("sum")).select_from(Order).where(*conditions).subquery()
    if continued:
        conditions.append(SORTING.behind(sort))
    shown = [cast(column, Text).label("items") if column.key == "items" else column for column in _SHOWN]
    chosen = select(*shown).where(*conditions).order_by(*SORTING.order(sort))
    page = chosen.limit(bindparam("limit", type_=Integer)).offset(bindparam("offset", type_=Integer)).subquery()
    size = func.sum(func.octet_length(page.c["items"])).over(order_by=SORTING.order(sort, page))
    measured = select(page, size.label("bytes"), func.count().over().label("found")).subquery()
    kept = select(measured).where(measured.c.bytes <= LARGEST_PAGE).subquery()
    # As text: to make a UUID and write it takes as long as the rest of the row.
    named = [
        cast(column, Text).label(column.key) if column.key in ("id", "user_id") else column
        for column in kept.columns
        if column.key != "bytes"
    ]
    if not counted:
        return Statement(select(*named).order_by(*SORTING.order(sort, kept)))
    both = select(*totals.columns, *named).select_from(totals.outerjoin(kept, true()))
    return Statement(both.order_by(*SORTING.order(sort, kept)))
