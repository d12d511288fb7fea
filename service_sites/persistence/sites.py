"""Every query about sites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Date,
    DateTime,
    and_,
    bindparam,
    cast,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy import Uuid as UuidType
from sqlalchemy.orm import InstrumentedAttribute, Session

from service_sites.errors import SiteNotFound
from service_sites.tables import Membership, Site
from servicekit.database.engine import Database, Prepared
from servicekit.database.statement import Statement
from servicekit.identity.reach import Reach

Sql = ColumnElement[Any] | InstrumentedAttribute[Any]

_NOW = bindparam("now", type_=DateTime(timezone=True))
_USER = bindparam("user_id", type_=UuidType())
_REACH = bindparam("reach", type_=UuidType())
_CALLER = bindparam("caller", type_=UuidType())
_OWN = and_(Membership.site_id == Site.id, Membership.user_id == _CALLER)
_COLUMNS = Site.__table__.columns
_SHOWN = (*_COLUMNS, Membership.role)


def today_at(time_zone: Sql) -> ColumnElement[date]:
    """The date in a time zone, at the moment in the parameter `now`."""
    return cast(func.timezone(time_zone, _NOW), Date())


class SiteNow(NamedTuple):
    """A site during a change to its items or people, which alone changes it."""

    id: UUID
    key: str
    time_zone: str
    calendar: str | None
    deadline_rules: Mapping[str, int | None]
    #: Of this change.
    change_seq: int
    #: The date there.
    today: date
    now: datetime


class FoundSites(NamedTuple):
    """One page, and how many there are."""

    rows: Sequence[Any]
    total: int


def _page(*conditions: ColumnElement[bool]) -> Statement:
    page = select(*_SHOWN).outerjoin(Membership, _OWN).where(*conditions).order_by(Site.key)
    return Statement(page.limit(bindparam("limit")).offset(bindparam("offset")))


_ALL, _THEIRS = _page(), _page(Membership.user_id.is_not(None))
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


def update_held(session: Session, site_id: UUID, changed: Mapping[str, Any]) -> None:
    """Set these columns of a site that is held."""
    session.execute(update(Site).where(Site.id == site_id).values(**changed))


#: What the reader is on the site.
READER: list[Any] = [
    Membership.name.label("reader_name"),
    Membership.role.label("reader_role"),
    Membership.organisation.label("reader_organisation"),
    Membership.position.label("reader_position"),
]
_AT_SITE: list[Any] = [
    *(Site.id, Site.key, Site.time_zone, Site.calendar, Site.deadline_rules, Site.change_seq),
    today_at(Site.time_zone).label("today"),
]
_BEGIN = Statement(
    update(Site).where(Site.id == bindparam("site_id")).values(change_seq=Site.change_seq + 1).returning(*_AT_SITE)
)


def begin(session: Session, site_id: UUID, now: datetime) -> SiteNow:
    """Begin a change to a site's items or people: until the transaction ends, others that would change them wait.

    So its `change_seq` is later than that of every change that was committed before.

    Raises `SiteNotFound`.
    """
    for row in run(session, _BEGIN, {"site_id": site_id, "now": now}):
        return SiteNow(**row._asdict(), now=now)
    raise SiteNotFound


_READ = Statement(
    select(*_AT_SITE, *READER, func.coalesce(Membership.changed_seq, 0).label("changed_seq"))
    .select_from(Site)
    .outerjoin(Membership, and_(Membership.site_id == Site.id, Membership.user_id == _USER))
    .where(Site.id == bindparam("site_id"), or_(cast(_REACH, UuidType()).is_(None), Membership.user_id == _REACH))
)
_PLANNED = Prepared.of("read_site", _READ.text, **_READ.types())


def reader(source: Database | Session, site_id: UUID, user_id: UUID | None, now: datetime, *, reach: Reach) -> Any:
    """Return a site, as a `SiteNow` has it, and what somebody is there, and since which change.

    `reach` has their id, or all. Raises `SiteNotFound`.
    """
    values = {"site_id": site_id, "user_id": user_id, "now": now, "reach": reach.owner}
    for row in run(source, _READ, values, prepared=_PLANNED):
        return row
    raise SiteNotFound


def run(
    source: Database | Session, statement: Statement, values: Mapping[str, Any], *, prepared: Prepared | None = None
) -> list[Any]:
    """Run a compiled statement by itself, where it may be `prepared`, or in a transaction, and return its rows as named
    tuples."""
    if isinstance(source, Database):
        return source.rows(statement, values, prepared=prepared)
    rows: Iterable[Any] = source.connection().exec_driver_sql(statement.text, statement.parameters(values))
    return statement.named(map(tuple, rows))
