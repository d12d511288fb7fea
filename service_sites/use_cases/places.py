"""The places and calendars of sites: one method, one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from service_sites.domain.calendars import holiday, national
from service_sites.domain.deadlines import WorkingDays, default_due_on
from service_sites.errors import LocationInUse, TooManyLocations
from service_sites.persistence import places, sites
from service_sites.schemas.places import (
    LAST_DAY,
    MOST_DAYS,
    CalendarQuery,
    CalendarView,
    DayView,
    LocationCreate,
    LocationsView,
    LocationUpdate,
    LocationView,
)
from service_sites.use_cases.members import actor, require_manager
from servicekit.database.engine import Database
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.process.clock import Clock, utc_now
from servicekit.process.ids import new_id
from servicekit.web.preconditions import ANY_STATE, IfMatch
from servicekit.wire.errors import Invalid

MOST_LEVELS = 8
#: All of them are shown at once.
MOST_LOCATIONS = 5_000
_SHOWN_DAYS = timedelta(days=30)


def due_by_rules(session: Session, site: Any, severity: str | None) -> date | None:
    """When an item is due by the rules of its site, a `SiteNow` or the like, if it is submitted today."""
    if severity is None or site.deadline_rules.get(severity) is None:
        return None
    days = WorkingDays(national(site.calendar), places.exceptions(session, site.id, site.today, LAST_DAY))
    return default_due_on(severity, site.deadline_rules, site.today, days)


class Places:
    """The use cases of locations; thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self, site_id: UUID, caller: Principal) -> LocationsView:
        """Return all locations of a site to one of its people. Raises `SiteNotFound`."""
        with self._database.transaction() as session:
            actor(session, site_id, caller)
            rows = places.locations(session, site_id)
        return LocationsView.unchecked(locations=[LocationView.of(row) for row in rows])

    def create(self, site_id: UUID, wanted: LocationCreate, caller: Principal) -> LocationView:
        """Add a location.

        Raises `SiteNotFound`, `Forbidden`, `LocationNameTaken`, `TooManyLocations`, and `Invalid` for a parent that the
        site does not have or that is too deep.
        """
        values = {"id": new_id(), "site_id": site_id, **wanted.model_dump()}
        with self._database.transaction() as session:
            self._hold(session, site_id, caller)
            if wanted.parent_id is not None:
                _require_room(session, site_id, wanted.parent_id, 1)
            if places.count_locations(session, site_id) >= MOST_LOCATIONS:
                raise TooManyLocations
            places.add_location(session, values)
        return LocationView.unchecked(**values)

    def update(
        self,
        site_id: UUID,
        location_id: UUID,
        change: LocationUpdate,
        caller: Principal,
        if_match: IfMatch = ANY_STATE,
    ) -> LocationView:
        """Rename or move a location. Raises as `create`, `LocationNotFound` and `PreconditionFailed`."""
        with self._database.transaction() as session:
            self._hold(session, site_id, caller)
            row = places.location(session, site_id, location_id)
            view = LocationView.of(row)
            if_match.require(view)
            change.require_unchanged(view)
            changed = {name: value for name, value in change.named().items() if value != getattr(row, name)}
            if not changed:
                return view
            if changed.get("parent_id") is not None:
                levels = places.levels_of(session, site_id, location_id)
                if location_id in _require_room(session, site_id, changed["parent_id"], levels):
                    raise Invalid.field("parent_id", "lies within this location")
            places.update_location(session, location_id, changed)
        return LocationView.unchecked(**{**view.model_dump(), **changed})

    def delete(
        self, site_id: UUID, location_id: UUID, caller: Principal, if_match: IfMatch = ANY_STATE
    ) -> LocationView:
        """Remove a location in which nothing is. Raises as `update` does, and `LocationInUse`."""
        with self._database.transaction() as session:
            self._hold(session, site_id, caller)
            view = LocationView.of(places.location(session, site_id, location_id))
            if_match.require(view)
            if places.is_used(session, site_id, location_id):
                raise LocationInUse
            places.remove_location(session, location_id)
        return view

    def _hold(self, session: Session, site_id: UUID, caller: Principal) -> None:
        """Hold a site for its manager, so that nobody moves one location while another is put there."""
        sites.hold(session, site_id)
        require_manager(actor(session, site_id, caller))


class Calendars:
    """The use cases of calendars; thread-safe."""

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    def days(self, site_id: UUID, query: CalendarQuery, caller: Principal) -> CalendarView:
        """Return days at a site to one of its people. Raises `SiteNotFound`, and `Invalid` for too many."""
        with self._database.transaction() as session:
            reach = caller.reach(Action.READ_SITES)
            site = sites.reader(session, site_id, caller.user_id, self._clock(), reach=reach)
            first = query.from_ or site.today
            last = query.to or min(first + _SHOWN_DAYS, LAST_DAY)
            if not 0 <= (last - first).days < MOST_DAYS:
                raise Invalid.field("to", f"must be from {first} to {first + timedelta(days=MOST_DAYS - 1)}")
            said = places.exceptions(session, site_id, first, last)
        days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
        return CalendarView.unchecked(days=[_day(site.calendar, day, said) for day in days])

    def set(self, site_id: UUID, day: date, works: bool, caller: Principal) -> DayView:
        """Decide whether the site works on a day. Raises `SiteNotFound` and `Forbidden`."""
        with self._database.transaction() as session:
            site = sites.hold(session, site_id)
            require_manager(actor(session, site_id, caller))
            places.set_day(session, site_id, day, works)
        return _day(site.calendar, day, {day: works})

    def forget(self, site_id: UUID, day: date, caller: Principal) -> DayView:
        """Leave a day to the country's calendar again; return the day as it then is.

        Raises `SiteNotFound`, `Forbidden` and `CalendarDayNotFound`.
        """
        with self._database.transaction() as session:
            site = sites.hold(session, site_id)
            require_manager(actor(session, site_id, caller))
            places.forget_day(session, site_id, day)
        return _day(site.calendar, day, {})


def _require_room(session: Session, site_id: UUID, parent_id: UUID, levels: int) -> list[UUID]:
    """The path of a parent that has room for so many levels more. Raises `Invalid`."""
    path = places.path_up(session, site_id, parent_id)
    if not path:
        raise Invalid.field("parent_id", "is no location of this site")
    if len(path) + levels > MOST_LEVELS:
        raise Invalid.field("parent_id", f"is too deep: there are {MOST_LEVELS} levels at most")
    return path


def _day(country: str | None, day: date, said: Mapping[date, bool]) -> DayView:
    works = WorkingDays(national(country), said).works(day)
    return DayView.unchecked(day=day, works=works, holiday=holiday(country, day), is_exception=day in said)
