"""Every query about sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, and_, bindparam, exists, func, insert, or_, select, text, update
from sqlalchemy import Uuid as UuidType
from sqlalchemy.orm import Session, aliased

from service_sites.errors import SiteNotFound
from service_sites.tables import Membership, Site
from servicekit.database.engine import Database
from servicekit.database.statement import Statement
from servicekit.identity.reach import Reach

_CALLER = bindparam("caller", type_=UuidType())
_OWN = and_(Membership.site_id == Site.id, Membership.user_id == _CALLER)
_COLUMNS = Site.__table__.columns
_SHOWN = (*_COLUMNS, Membership.role)


def of_site(site_id: Any, owner: Any) -> ColumnElement[bool]:
    """The condition that a person is one of a site's people."""
    of = aliased(Membership)
    return exists().where(of.site_id == site_id, of.user_id == owner)


class FoundSites(NamedTuple):
    """One page, and how many there are."""

    rows: Sequence[Any]
    total: int


def _page(*conditions: ColumnElement[bool]) -> Statement:
    page = select(*_SHOWN).outerjoin(Membership, _OWN).where(*conditions).order_by(Site.key)
    return Statement(page.limit(bindparam("limit")).offset(bindparam("offset")))


_ALL, _THEIRS = _page(), _page(of_site(Site.id, _CALLER))
_COUNT_ALL = Statement(select(func.count().label("total")).select_from(Site))
_COUNT_THEIRS = Statement(
    select(func.count().label("total")).select_from(Membership).where(Membership.user_id == _CALLER)
)
_ONE = Statement(
    select(*_SHOWN)
    .outerjoin(Membership, _OWN)
    .where(Site.id == bindparam("id"), or_(bindparam("all"), Membership.role.is_not(None)))
)
_ZONE = "SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = %(name)s)"


def search(database: Database, caller: UUID | None, limit: int, offset: int, *, reach: Reach) -> FoundSites:
    """One page of the sites within reach by their keys, each with the caller's role there, if any."""
    page, count = (_ALL, _COUNT_ALL) if reach.owner is None else (_THEIRS, _COUNT_THEIRS)
    rows = database.rows(page, {"caller": caller, "limit": limit, "offset": offset})
    return FoundSites(rows, database.rows(count, {"caller": caller})[0].total)


def find(database: Database, site_id: UUID, caller: UUID | None, *, reach: Reach) -> Any:
    """A site with the caller's role there, if any. Raises `SiteNotFound`."""
    for row in database.rows(_ONE, {"id": site_id, "caller": caller, "all": reach.owner is None}):
        return row
    raise SiteNotFound


def knows_time_zone(database: Database, name: str) -> bool:
    """Whether PostgreSQL, which calculates with it, knows a time zone too."""
    return bool(database.once(_ZONE, {"name": name})[0][0])


def add(session: Session, values: Mapping[str, Any]) -> None:
    """Insert a site."""
    session.execute(insert(Site).values(**values))


def hold(session: Session, site_id: UUID) -> Any:
    """Lock a site's row until the transaction ends, so that nothing of the site changes meanwhile, and return it.

    Raises `SiteNotFound`.
    """
    held = select(*_COLUMNS).where(Site.id == site_id).with_for_update(key_share=True)
    for row in session.execute(held):
        return row
    raise SiteNotFound


def show(session: Session, site_id: UUID) -> Any:
    """A site as it is. Raises `SiteNotFound`."""
    for row in session.execute(select(*_COLUMNS).where(Site.id == site_id)):
        return row
    raise SiteNotFound


def update_held(session: Session, site_id: UUID, changed: Mapping[str, Any]) -> None:
    """Set these columns of a site that is held."""
    session.execute(update(Site).where(Site.id == site_id).values(**changed))


def count_change(session: Session, site_id: UUID) -> int:
    """Hold a site as `hold` does, and return the number of a change that is about to be made. Raises `SiteNotFound`."""
    counted = text("UPDATE sites SET change_seq = change_seq + 1 WHERE id = :id RETURNING change_seq")
    number: int | None = session.execute(counted, {"id": site_id}).scalar()
    if number is None:
        raise SiteNotFound
    return number
