"""Every query about users."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import func, inspect, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service_users.errors import EmailTaken
from service_users.tables import User
from servicekit.web.paging import Found, SortedQuery, Sorting

SORTING = Sorting(User.id, User.created_at, name=User.name_key, email=User.email_key)


def add(session: Session, user: User) -> None:
    """Store a new user. Raises `EmailTaken` if another user has the address."""
    values = {column.key: getattr(user, column.key) for column in inspect(User).column_attrs}
    # A taken address is an expected case, not a failed statement.
    stored = insert(User).values(values).on_conflict_do_nothing(constraint="uq_users_email_key").returning(User.id)
    if session.scalar(stored) is None:
        raise EmailTaken


def require_free(session: Session, user_id: UUID, email_key: str) -> None:
    """Raises `EmailTaken` if another user has this address; the constraint settles races."""
    if session.scalar(select(User.id).where(User.email_key == email_key, User.id != user_id)) is not None:
        raise EmailTaken


def find(session: Session, user_id: UUID) -> User | None:
    """Return the user, or None."""
    return session.get(User, user_id)


def find_for_update(session: Session, user_id: UUID) -> User | None:
    """Return the user, locked until the transaction ends, or None."""
    return session.get(User, user_id, with_for_update=True)


def remove(session: Session, user: User) -> None:
    """Delete the user."""
    session.delete(user)


def search(
    session: Session, page: SortedQuery, *, email_key: str | None, role: str | None, part: str | None
) -> Found[User]:
    """Return one page of the matching users.

    `email_key` and `part` are in the form of servicekit.wire.caseless. Raises `Invalid` as `Sorting.place` does.
    """
    created = {name: getattr(page, name) for name in ("created_from", "created_to") if getattr(page, name) is not None}
    place = SORTING.place(page)
    conditions = SORTING.filters(created)
    if email_key is not None:
        conditions.append(User.email_key == email_key)
    if role is not None:
        conditions.append(User.roles.contains([role]))
    if part is not None:
        conditions.append(
            or_(User.name_key.contains(part, autoescape=True), User.email_key.contains(part, autoescape=True))
        )
    wanted = select(User).where(*conditions, *([SORTING.behind(page.sort)] if place else []))
    wanted = wanted.order_by(*SORTING.order(page.sort)).limit(page.limit + 1).offset(page.offset)
    users = session.scalars(wanted, {**created, **place}).all()
    count = select(func.count()).select_from(User).where(*conditions)
    total = session.scalar(count, created) if page.total else None
    shown = users[: page.limit]
    return Found(shown, total, SORTING.next(page.sort, shown[-1]) if len(users) > page.limit else None)
