"""Every query about orders."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from service_orders.tables import Order


def add(session: Session, order: Order) -> None:
    """Store a new order."""
    session.add(order)
    session.flush()


def find(session: Session, order_id: UUID) -> Order | None:
    """Give the order, if there is one."""
    return session.get(Order, order_id)


def find_for_update(session: Session, order_id: UUID) -> Order | None:
    """Give the order, locked until the transaction ends."""
    return session.get(Order, order_id, with_for_update=True)


def find_of_user_for_update(session: Session, user_id: UUID, statuses: Collection[str]) -> Sequence[Order]:
    """Give a user's orders that stand there, locked until the transaction ends."""
    of_user = select(Order).where(Order.user_id == user_id, Order.status.in_(statuses))
    return session.scalars(of_user.order_by(Order.id).with_for_update()).all()


def remove(session: Session, order: Order) -> None:
    """Delete the order."""
    session.delete(order)


def search(
    session: Session, *, user_id: UUID | None, status: str | None, limit: int, offset: int
) -> tuple[Sequence[Order], int]:
    """Give one page of the orders that fit, the newest first, and how many fit in all."""
    conditions: list[ColumnElement[bool]] = []
    if user_id is not None:
        conditions.append(Order.user_id == user_id)
    if status is not None:
        conditions.append(Order.status == status)
    total = session.scalar(select(func.count()).select_from(Order).where(*conditions)) or 0
    page = select(Order).where(*conditions).order_by(Order.created_at.desc(), Order.id.desc())
    return session.scalars(page.limit(limit).offset(offset)).all(), total
