"""Every query about orders."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Integer, Row, Select, Text, bindparam, cast, func, select
from sqlalchemy.orm import Session, defer

from service_orders.tables import Order
from servicekit.web.paging import SortedQuery, Sorting

#: The most bytes of JSON that the items of one page may have; one order never has more.
LARGEST_PAGE = 1024 * 1024
SORTING = Sorting(Order.id, Order.created_at, total_amount=Order.total_amount)
_ESCAPES = str.maketrans({wildcard: f"/{wildcard}" for wildcard in "%_/"})


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


class OrdersFound(NamedTuple):
    """One page: rows whose items are JSON text; how many orders match in all, and their sum (None: not counted); the
    place behind the page if more follow."""

    orders: Sequence[Row[Any]]
    total: int | None
    total_amount: Decimal | None
    next: str | None


def search(
    session: Session, page: SortedQuery, *, user_id: UUID | None, status: str | None, part: str | None
) -> OrdersFound:
    """Return one page of the matching orders; shorter than `page.limit` if their items would exceed `LARGEST_PAGE`.

    `part` is in the form of servicekit.wire.caseless. Raises `Invalid` as `Sorting.place` does.
    """
    place = SORTING.place(page)
    which = {
        "user_id": user_id,
        "status": status,
        "product": None if part is None else f"%{part.translate(_ESCAPES)}%",
        "created_from": page.created_from,
        "created_to": page.created_to,
    }
    which = {name: value for name, value in which.items() if value is not None}
    totals, wanted = _search(page.sort, bool(place), *which)
    rows = session.execute(wanted, {**which, **place, "limit": page.limit + 1, "offset": page.offset}).all()
    total, total_amount = session.execute(totals, which).one() if page.total else (None, None)
    shown = rows[: page.limit]
    more = bool(rows) and rows[0].found > len(shown)
    return OrdersFound(shown, total, total_amount, SORTING.next(page.sort, shown[-1]) if more else None)


@cache
def _search(sort: str, continued: bool, *given: str) -> tuple[Select[int, Decimal], Select[Any]]:
    """The statements of `search`, cached: building them takes longer than running them."""
    columns = Order.__table__.columns
    conditions = SORTING.filters(given)
    conditions += [columns[name] == bindparam(name) for name in ("user_id", "status") if name in given]
    if "product" in given:
        conditions.append(Order.products_key.like(bindparam("product"), escape="/"))
    amount = func.coalesce(func.sum(Order.total_amount), Decimal("0.00"))
    totals = select(func.count(), amount).select_from(Order).where(*conditions)
    if continued:
        conditions.append(SORTING.behind(sort))
    shown = [column for column in columns if column.name not in ("items", "products_key")]
    chosen = select(*shown, cast(columns["items"], Text).label("items")).where(*conditions)
    chosen = chosen.order_by(*SORTING.order(sort))
    page = chosen.limit(bindparam("limit", type_=Integer)).offset(bindparam("offset", type_=Integer)).subquery()
    size = func.sum(func.octet_length(page.c["items"])).over(order_by=SORTING.order(sort, page))
    measured = select(page, size.label("bytes"), func.count().over().label("found")).subquery()
    kept = select(measured).where(measured.c.bytes <= LARGEST_PAGE)
    return totals, kept.order_by(*SORTING.order(sort, measured))
