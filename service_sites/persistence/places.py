"""Every query about the places and calendars of sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import delete, exists, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service_sites.errors import CalendarDayNotFound, LocationNotFound
from service_sites.tables import CalendarDay, Location, WorkItem

_COLUMNS = Location.__table__.columns
_PATH = text("""
    WITH RECURSIVE up (id, parent_id, depth) AS (
        SELECT id, parent_id, 1 FROM locations WHERE site_id = :site_id AND id = :id
        UNION ALL
        SELECT l.id, l.parent_id, depth + 1 FROM locations l JOIN up ON l.id = up.parent_id)
    SELECT id FROM up ORDER BY depth
""")
_HEIGHT = text("""
    WITH RECURSIVE down (id, level) AS (
        SELECT id, 1 FROM locations WHERE site_id = :site_id AND id = :id
        UNION ALL
        SELECT l.id, level + 1 FROM locations l JOIN down ON l.site_id = :site_id AND l.parent_id = down.id)
    SELECT max(level) FROM down
""")


def locations(session: Session, site_id: UUID) -> Sequence[Any]:
    """All locations of a site, siblings in their order."""
    of_site = select(*_COLUMNS).where(Location.site_id == site_id)
    return session.execute(of_site.order_by(Location.position, Location.name, Location.id)).all()


def count_locations(session: Session, site_id: UUID) -> int:
    """How many locations a site has."""
    return session.execute(select(func.count()).select_from(Location).where(Location.site_id == site_id)).scalar_one()


def location(session: Session, site_id: UUID, location_id: UUID) -> Any:
    """A location of a site. Raises `LocationNotFound`."""
    row = session.execute(select(*_COLUMNS).where(Location.site_id == site_id, Location.id == location_id)).first()
    if row is None:
        raise LocationNotFound
    return row


def path_up(session: Session, site_id: UUID, location_id: UUID) -> list[UUID]:
    """A location and those that it lies in, from within; empty if the site has no such location."""
    return list(session.execute(_PATH, {"site_id": site_id, "id": location_id}).scalars())


def levels_of(session: Session, site_id: UUID, location_id: UUID) -> int:
    """How many levels a location has, with its own."""
    return int(session.execute(_HEIGHT, {"site_id": site_id, "id": location_id}).scalar_one())


def add_location(session: Session, values: Mapping[str, Any]) -> None:
    """Insert a location."""
    session.execute(insert(Location).values(**values))


def update_location(session: Session, location_id: UUID, changed: Mapping[str, Any]) -> None:
    """Set these columns of a location."""
    session.execute(update(Location).where(Location.id == location_id).values(**changed))


def is_used(session: Session, site_id: UUID, location_id: UUID) -> bool:
    """Whether a work item or another location is in a location of a site that is held."""
    inside = (
        exists().where(Location.site_id == site_id, Location.parent_id == location_id),
        exists().where(WorkItem.location_id == location_id),
    )
    return session.execute(select(or_(*inside))).scalar_one()


def remove_location(session: Session, location_id: UUID) -> None:
    """Remove a location that is not used."""
    session.execute(delete(Location).where(Location.id == location_id))


def exceptions(session: Session, site_id: UUID, first: date, last: date) -> dict[date, bool]:
    """What a site has said itself of days from `first` to `last`: whether it works."""
    said = select(CalendarDay.day, CalendarDay.works).where(
        CalendarDay.site_id == site_id, CalendarDay.day.between(first, last)
    )
    return {row.day: row.works for row in session.execute(said)}


def set_day(session: Session, site_id: UUID, day: date, works: bool) -> None:
    """Store what a site says of a day."""
    said = insert(CalendarDay).values(site_id=site_id, day=day, works=works)
    session.execute(said.on_conflict_do_update(constraint="pk_calendar_days", set_={"works": works}))


def forget_day(session: Session, site_id: UUID, day: date) -> None:
    """Remove what a site says of a day. Raises `CalendarDayNotFound`."""
    said = delete(CalendarDay).where(CalendarDay.site_id == site_id, CalendarDay.day == day)
    if session.execute(said.returning(CalendarDay.day)).first() is None:
        raise CalendarDayNotFound
