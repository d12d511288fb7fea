"""Every query about users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    case,
    cast,
    delete,
    func,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, array, insert
from sqlalchemy.orm import Session, aliased

from service_users.errors import EmailTaken, UserNotFound
from service_users.schemas import ColleagueView, UserView
from service_users.tables import SiteMember, User
from servicekit.database.engine import Database
from servicekit.database.statement import Statement, containing, within_reach
from servicekit.database.trigrams import sought
from servicekit.events import outbox
from servicekit.events.cloudevents import Event
from servicekit.events.outbox import Also
from servicekit.events.rows import RowsById
from servicekit.identity.reach import Reach
from servicekit.web.idempotency import RequestKey
from servicekit.web.lists import Filters, Found, RowWriter, SortedList
from servicekit.web.paging import SortedQuery, Sorting
from servicekit.web.sql_encoders import sql_encoder_of

SORTING = Sorting(User.id, User.created_at, name=User.name_key, email=User.email_key)
#: In the order of names each lies on a page of its own: to look through ten thousand takes 20 to 60 ms.
_MOST = 4_000

_SHOWN = (User.id, User.email, User.name, User.roles, User.created_at, User.updated_at)
_HAS_PASSWORD = User.password_hash.is_not(None).label("has_password")
#: What is shown of each, whether there is a password, and the epoch.
ROWS = RowsById(User.id, *_SHOWN, _HAS_PASSWORD, User.auth_epoch, owner=User.id, missing=UserNotFound)
_STORED = (*_SHOWN, User.email_key, User.name_key, User.password_hash, User.must_change_password)
_VALUES = {column.key: bindparam(column.key, type_=column.type) for column in _STORED}
_ADD = Statement(
    insert(User)
    .from_select(list(_VALUES), select(*_VALUES.values()).where(within_reach(_VALUES["id"])))
    .on_conflict_do_nothing(constraint="uq_users_email_key")
    .returning(User.id)
)
_PERSON: tuple[Any, ...] = (User.id, User.name)
_PEOPLE = Statement(
    select(*_PERSON).where(
        or_(User.email_key == bindparam("email_key"), User.id == bindparam("id", type_=Uuid())),
        User.disabled_at.is_(None),
    )
)
_REACH = bindparam("reach", type_=Uuid())
_ME, _THEM = aliased(SiteMember), aliased(SiteMember)
#: Whoever works on a site with the owner of a reach.
_KNOWN = select(_THEM.user_id).join(_ME, _ME.site_id == _THEM.site_id).where(_ME.user_id == _REACH)
_COLLEAGUE = Statement(
    select(*_PERSON).where(User.id == bindparam("id"), _KNOWN.where(_THEM.user_id == User.id).exists())
)
_JOIN = """
INSERT INTO site_members (site_id, user_id)
SELECT %(site_id)s::uuid, id FROM users WHERE id = %(user_id)s::uuid ON CONFLICT DO NOTHING
"""
_OTHER = Statement(select(User.id).where(User.email_key == bindparam("email_key"), User.id != bindparam("id")))


def add(
    database: Database, values: Mapping[str, Any], event: Event, key: RequestKey | None, also: Also, *, reach: Reach
) -> UUID | None:
    """Insert a user as `outbox.make` does; None if another has the address: an expected case, no failed statement."""
    return outbox.make(database, _ADD, {**values, "reach": reach.owner}, event, key, also)


def require_free(database: Database, user_id: UUID, email_key: str) -> None:
    """Raises `EmailTaken` if another user, in whomever's reach, has this address; the constraint settles races."""
    if database.rows(_OTHER, {"id": user_id, "email_key": email_key}):
        raise EmailTaken


def people(database: Database, *, email_key: str | None, user_id: UUID | None) -> list[Any]:
    """Id and name of whoever has this address or this id, and an account that is not disabled."""
    return database.rows(_PEOPLE, {"email_key": email_key, "id": user_id})


def colleague(database: Database, user_id: UUID, *, reach: Reach) -> Any | None:
    """Id and name of somebody who works on a site with the owner of this reach, if they do."""
    return next(iter(database.rows(_COLLEAGUE, {"id": user_id, "reach": reach.owner})), None)


def join_site(session: Session, site_id: UUID, user_id: UUID) -> None:
    """Remember that somebody works on a site; of nobody nothing is remembered."""
    session.connection().exec_driver_sql(_JOIN, {"site_id": site_id, "user_id": user_id})


def leave_site(session: Session, site_id: UUID, user_id: UUID) -> None:
    """Forget that somebody works on a site."""
    session.execute(delete(SiteMember).where(SiteMember.site_id == site_id, SiteMember.user_id == user_id))


def search(
    database: Database,
    page: SortedQuery,
    *,
    reach: Reach,
    email_key: str | None,
    role: str | None,
    part: str | None,
    ids: Sequence[str] | None = None,
) -> Found:
    """Return one page of the matching users.

    `email_key` and `part` are in the form of servicekit.wire.caseless. Raises `Invalid` as `Sorting.place` and
    `SortedList.find` do.
    """
    place = SORTING.place(page)
    values = {
        "reach": reach.owner,
        "email_key": email_key,
        "role": role,
        "ids": ids,
        "part": containing(part) if part else None,
        **(sought(part) if part else {}),
        "created_from": page.created_from,
        "created_to": page.created_to,
    }
    values = {name: value for name, value in values.items() if value is not None}
    return _list(page.sort, bool(place), page.total, *values).find(database, page, {**values, **place})


@lru_cache(maxsize=200)
def _list(sort: str, continued: bool, counted: bool, *given: str) -> SortedList:
    filters = Filters(most=_MOST)
    by_time = SORTING.column(sort).key == "created_at"
    (filters.ordered if by_time else filters.others).extend(SORTING.filters(given))
    is_own = User.id == _REACH
    if "reach" in given:
        # Addresses and roles are those of oneself alone, whatever asks about them.
        if SORTING.column(sort).key == "email_key" or {"email_key", "role"} & {*given}:
            filters.ordered.append(is_own)
        else:
            # In one subquery, so that users are found by their ids and not all looked through.
            filters.others.append(User.id.in_(union_all(select(_REACH), _KNOWN)))
    if "email_key" in given:
        filters.ordered.append(User.email_key == bindparam("email_key"))
    if "ids" in given:
        filters.others.append(User.id == any_(cast(bindparam("ids"), ARRAY(Uuid()))))
    if "role" in given:
        filters.others.append(User.roles.contains(array([bindparam("role", type_=Text)])))
    if "part" in given:
        part = bindparam("part", type_=Text)
        by_email = User.email_key.like(part, escape="/")
        filters.part = or_(
            User.name_key.like(part, escape="/"), and_(is_own, by_email) if "reach" in given else by_email
        )
        filters.trigrams = func.trigrams(User.name_key, User.email_key)
    view = _AS_KNOWN if "reach" in given else UserView
    return SortedList(User, view, SORTING, sort, filters, continued=continued, counted=counted)


def _as_known(page: FromClause) -> ColumnElement[str]:
    """Each row as the owner of a reach may see it: their own whole."""
    is_own = page.c.id == _REACH
    return case((is_own, sql_encoder_of(UserView, page.c)), else_=sql_encoder_of(ColleagueView, page.c))


_AS_KNOWN = RowWriter(_as_known)
