"""Every query about orders."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Integer, RowMapping, Select, Text, bindparam, cast, func, select
from sqlalchemy.orm import Session, defer

from service_orders.tables import Order

#: The most bytes of JSON that the items of one page may have; one order never has more.
LARGEST_PAGE = 1024 * 1024


def add(session: Session, order: Order) -> None:
    """Store a new order."""
    session.add(order)
    session.flush()


def find(session: Session, order_id: UUID) -> Order | None:
    """Return the order, or None."""
    return session.get(Order, order_id)


def find_for_update(session: Session, order_id: UUID) -> Order | None:
    """Return the order, locked until the transaction ends, or None."""
    return session.get(Order, order_id, with_for_update=True)


def find_of_user_for_update(session: Session, user_id: UUID, statuses: Collection[str], limit: int) -> Sequence[Order]:
    """Return at most `limit` of a user's orders in these statuses, without items, locked until commit."""
    of_user = select(Order).where(Order.user_id == user_id, Order.status.in_(statuses)).order_by(Order.id).limit(limit)
    return session.scalars(of_user.with_for_update().options(defer(Order.items))).all()


def remove(session: Session, order: Order) -> None:
    """Delete the order."""
    session.delete(order)


def search(
    session: Session, *, user_id: UUID | None, status: str | None, limit: int, offset: int
) -> tuple[Sequence[RowMapping], int]:
    """Return one page of the matching orders, newest first, and the total number of matches.

    The items come as JSON text; the page is shorter than `limit` if they would exceed `LARGEST_PAGE`.
    """
    which = {"user_id": user_id, "status": status}
    count, page = _search(*(name for name, value in which.items() if value is not None))
    total: int = session.scalar(count, which) or 0
    return session.execute(page, {**which, "limit": limit, "offset": offset}).mappings().all(), total


@cache
def _search(*filters: str) -> tuple[Select[Any], Select[Any]]:
    """The statements of `search`, cached: building them takes longer than running them."""
    columns = Order.__table__.columns
    conditions = [columns[name] == bindparam(name) for name in filters]
    count = select(func.count()).select_from(Order).where(*conditions)
    shown = [column for column in columns if column.name != "items"]
    newest = select(*shown, cast(columns["items"], Text).label("items")).where(*conditions)
    newest = newest.order_by(Order.created_at.desc(), Order.id.desc())
    page = newest.limit(bindparam("limit", type_=Integer)).offset(bindparam("offset", type_=Integer)).subquery()
    in_order = (page.c.created_at.desc(), page.c.id.desc())
    size = func.sum(func.octet_length(page.c["items"])).over(order_by=in_order)
    measured = select(page, size.label("bytes")).subquery()
    kept = select(measured).where(measured.c.bytes <= LARGEST_PAGE)
    return count, kept.order_by(measured.c.created_at.desc(), measured.c.id.desc())
