"""Every query about orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import Text, bindparam, exists, func, insert, select, update
from sqlalchemy.orm import Session

from service_orders.domain import OPEN, USER_DELETED, OrderStatus
from service_orders.errors import OrderNotFound
from service_orders.schemas import OrderView
from service_orders.tables import Base, Order
from servicekit.database.engine import Database
from servicekit.database.statement import Statement, containing, within_reach
from servicekit.database.trigrams import sought
from servicekit.events import outbox, tombstones
from servicekit.events.cloudevents import Event
from servicekit.events.rows import RowsById
from servicekit.identity.reach import Reach
from servicekit.web.idempotency import RequestKey
from servicekit.web.lists import Filters, Found, SortedList
from servicekit.web.paging import SortedQuery, Sorting

SORTING = Sorting(Order.id, Order.created_at, total_amount=Order.total_amount)
#: No index has the products, and in the order of amounts each order lies on a page of its own.
_MOST = 4_000

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
ROWS = RowsById(Order.id, *_SHOWN, owner=Order.user_id, missing=OrderNotFound)


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


def search(
    database: Database,
    page: SortedQuery,
    *,
    reach: Reach,
    user_id: UUID | None,
    status: str | None,
    part: str | None,
) -> Found:
    """Return one page of the matching orders, and what all of these add up to.

    `part` is in the form of servicekit.wire.caseless. Raises `Invalid` as `Sorting.place` and `SortedList.find` do.
    """
    place = SORTING.place(page)
    values = {
        "reach": reach.owner,
        "user_id": user_id,
        "status": status,
        "part": containing(part) if part else None,
        **(sought(part) if part else {}),
        "created_from": page.created_from,
        "created_to": page.created_to,
    }
    values = {name: value for name, value in values.items() if value is not None}
    return _list(page.sort, bool(place), page.total, *values).find(database, page, {**values, **place})


@lru_cache(maxsize=200)
def _list(sort: str, continued: bool, counted: bool, *given: str) -> SortedList:
    wanted = {"reach": Order.user_id, "user_id": Order.user_id, "status": Order.status}
    equal = [column == bindparam(name) for name, column in wanted.items() if name in given]
    filters = Filters()
    if SORTING.column(sort).key == "created_at":
        # There is an index of each of them with the time, and none of two.
        filters.ordered += [*equal[:1], *SORTING.filters(given)]
        filters.others += equal[1:]
    else:
        filters.others += [*equal, *SORTING.filters(given)]
    if "part" in given:
        filters.most = _MOST
        filters.part = Order.products_key.like(bindparam("part", type_=Text), escape="/")
        filters.trigrams = func.trigrams(Order.products_key)
    return SortedList(
        Order, OrderView, SORTING, sort, filters, continued=continued, counted=counted, added_up=Order.total_amount
    )
