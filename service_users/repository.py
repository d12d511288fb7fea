"""Every query about users."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Integer, Text, bindparam, cast, func, or_, select, true
from sqlalchemy.dialects.postgresql import array, insert

from service_users.errors import EmailTaken
from service_users.tables import User
from servicekit.database.engine import Database
from servicekit.database.statement import Statement, containing, within_reach
from servicekit.events import outbox
from servicekit.events.cloudevents import Event
from servicekit.events.rows import RowsById
from servicekit.identity.reach import Reach
from servicekit.web.idempotency import RequestKey
from servicekit.web.paging import Found, SortedQuery, Sorting

SORTING = Sorting(User.id, User.created_at, name=User.name_key, email=User.email_key)


_SHOWN = (User.id, User.email, User.name, User.roles, User.created_at, User.updated_at)
_HAS_PASSWORD = User.password_hash.is_not(None).label("has_password")
#: What is shown of each, and whether there is a password.
ROWS = RowsById(User.id, *_SHOWN, _HAS_PASSWORD, owner=User.id)
_VALUES = {column.key: bindparam(column.key, type_=column.type) for column in User.__table__.columns}
_ADD = Statement(
    insert(User)
    .from_select(list(_VALUES), select(*_VALUES.values()).where(within_reach(_VALUES["id"])))
    .on_conflict_do_nothing(constraint="uq_users_email_key")
    .returning(User.id)
)
_OTHER = Statement(select(User.id).where(User.email_key == bindparam("email_key"), User.id != bindparam("id")))


def add(
    database: Database, values: Mapping[str, Any], event: Event, key: RequestKey | None, *, reach: Reach
) -> UUID | None:
    """Insert a user as `outbox.make` does; None if another has the address: an expected case, no failed statement."""
    return outbox.make(database, _ADD, {**values, "reach": reach.owner}, event, key)


def require_free(database: Database, user_id: UUID, email_key: str) -> None:
    """Raises `EmailTaken` if another user, in whomever's reach, has this address; the constraint settles races."""
    if database.rows(_OTHER, {"id": user_id, "email_key": email_key}):
        raise EmailTaken


def search(
    database: Database, page: SortedQuery, *, email_key: str | None, role: str | None, part: str | None
) -> Found[Any]:
    """Return one page of the matching users in one round trip: rows with what is shown of them, whose id is text.

    `email_key` and `part` are in the form of servicekit.wire.caseless. Raises `Invalid` as `Sorting.place` does.
    """
    place = SORTING.place(page)
    which = {
        "email_key": email_key,
        "role": role,
        "part": None if part is None else containing(part),
        "created_from": page.created_from,
        "created_to": page.created_to,
    }
    which = {name: value for name, value in which.items() if value is not None}
    statement = _search(page.sort, bool(place), page.total, *which)
    rows = database.rows(statement, {**which, **place, "limit": page.limit + 1, "offset": page.offset})
    total = rows[0].total if page.total else None
    # A total without users is a row without a user.
    users = rows if rows and rows[0].id is not None else []
    shown = users[: page.limit]
    return Found(shown, total, SORTING.next(page.sort, shown[-1]) if len(users) > page.limit else None)


@cache
def _search(sort: str, continued: bool, counted: bool, *given: str) -> Statement:
    conditions = SORTING.filters(given)
    if "email_key" in given:
        conditions.append(User.email_key == bindparam("email_key"))
    if "role" in given:
        conditions.append(User.roles.contains(array([bindparam("role", type_=Text)])))
    if "part" in given:
        part = bindparam("part", type_=Text)
        conditions.append(or_(User.name_key.like(part, escape="/"), User.email_key.like(part, escape="/")))
    count = select(func.count().label("total")).select_from(User).where(*conditions).subquery()
    if continued:
        conditions.append(SORTING.behind(sort))
    names = {*(column.key for column in _SHOWN), SORTING.column(sort).key}
    page = select(*(column for column in User.__table__.columns if column.key in names)).where(*conditions)
    page = page.order_by(*SORTING.order(sort))
    page = page.limit(bindparam("limit", type_=Integer)).offset(bindparam("offset", type_=Integer))
    found = page.subquery()
    # As text: to make a UUID and write it takes as long as the rest of the row.
    columns = [cast(column, Text).label("id") if column.key == "id" else column for column in found.columns]
    if not counted:
        return Statement(select(*columns).order_by(*SORTING.order(sort, found)))
    both = select(count.columns.total, *columns).select_from(count.outerjoin(found, true()))
    return Statement(both.order_by(*SORTING.order(sort, found)))
