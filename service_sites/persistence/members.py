"""Every query about the people of sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, delete, func, insert, select, update
from sqlalchemy import Uuid as UuidType
from sqlalchemy.orm import Session

from service_sites.domain.people import Member, SiteRole
from service_sites.errors import MemberNotFound
from service_sites.persistence.sites import run
from service_sites.tables import Membership
from servicekit.database.engine import Database
from servicekit.database.statement import Statement

_SITE, _USER = (bindparam(name, type_=UuidType()) for name in ("site_id", "user_id"))
_COLUMNS = Membership.__table__.columns
_ONE = Statement(select(*_COLUMNS).where(Membership.site_id == _SITE, Membership.user_id == _USER))
_SHORT: list[Any] = [Membership.name, Membership.role, Membership.organisation]
_ENABLED = Statement(
    select(*_SHORT).where(
        Membership.site_id == bindparam("site_id"), Membership.user_id == bindparam("user_id"), ~Membership.disabled
    )
)
_PAGE = Statement(
    select(*_COLUMNS)
    .where(Membership.site_id == _SITE)
    .order_by(Membership.name, Membership.user_id)
    .limit(bindparam("limit"))
    .offset(bindparam("offset"))
)
_COUNT = Statement(select(func.count().label("total")).select_from(Membership).where(Membership.site_id == _SITE))


class FoundMembers(NamedTuple):
    """One page, and how many there are."""

    rows: Sequence[Any]
    total: int


def search(database: Database, site_id: UUID, limit: int, offset: int) -> FoundMembers:
    """One page of a site's people, by their names."""
    rows = database.rows(_PAGE, {"site_id": site_id, "limit": limit, "offset": offset})
    return FoundMembers(rows, database.rows(_COUNT, {"site_id": site_id})[0].total)


def add(session: Session, values: Mapping[str, Any]) -> None:
    """Insert a membership."""
    session.execute(insert(Membership).values(**values))


def held(session: Session, site_id: UUID, user_id: UUID) -> Any:
    """Somebody's membership of a site that is held. Raises `MemberNotFound`."""
    for row in run(session, _ONE, {"site_id": site_id, "user_id": user_id}):
        return row
    raise MemberNotFound


def enabled(session: Session, site_id: UUID, user_id: UUID) -> Member | None:
    """One of a site's people, unless their account is disabled."""
    for row in run(session, _ENABLED, {"site_id": site_id, "user_id": user_id}):
        return Member(user_id, row.name, SiteRole(row.role), row.organisation)
    return None


def update_held(session: Session, site_id: UUID, user_id: UUID, changed: Mapping[str, Any]) -> None:
    """Set these columns of a membership."""
    session.execute(update(Membership).where(*_of(site_id, user_id)).values(**changed))


def remove(session: Session, site_id: UUID, user_id: UUID) -> None:
    """Remove a membership."""
    session.execute(delete(Membership).where(*_of(site_id, user_id)))


def has_another_manager(session: Session, site_id: UUID, user_id: UUID) -> bool:
    """Whether a site has a manager besides this one who may log in."""
    managers = (Membership.site_id == site_id, Membership.role == SiteRole.MANAGER, ~Membership.disabled)
    return (
        session.execute(select(Membership.user_id).where(*managers, Membership.user_id != user_id)).first() is not None
    )


def rename(session: Session, user_id: UUID, name: str, moment: datetime) -> None:
    """Give somebody's memberships their new name."""
    renamed = update(Membership).where(Membership.user_id == user_id, Membership.name != name)
    session.execute(renamed.values(name=name, updated_at=moment))


def mark(session: Session, user_id: UUID, disabled: bool, moment: datetime) -> None:
    """Mark somebody's memberships as those of an account that is disabled, or no longer is."""
    marked = update(Membership).where(Membership.user_id == user_id, Membership.disabled != disabled)
    session.execute(marked.values(disabled=disabled, updated_at=moment))


def sites_of(session: Session, user_id: UUID) -> list[UUID]:
    """The sites of which somebody is one of the people, in the order of their ids."""
    theirs = select(Membership.site_id).where(Membership.user_id == user_id).order_by(Membership.site_id)
    return list(session.scalars(theirs))


def forget(session: Session, user_id: UUID) -> None:
    """Remove somebody from all sites."""
    session.execute(delete(Membership).where(Membership.user_id == user_id))


def _of(site_id: UUID, user_id: UUID) -> tuple[ColumnElement[bool], ...]:
    return Membership.site_id == site_id, Membership.user_id == user_id
