"""The routes of places and calendars: parse, call, answer."""

from __future__ import annotations

from datetime import date
from uuid import UUID

from service_sites.errors import (
    CalendarDayNotFound,
    LocationInUse,
    LocationNameTaken,
    LocationNotFound,
    SiteNotFound,
    TooManyLocations,
)
from service_sites.schemas.places import (
    CalendarQuery,
    CalendarView,
    DayUpdate,
    DayView,
    LocationCreate,
    LocationsView,
    LocationUpdate,
    LocationView,
    day_in_reach,
)
from service_sites.use_cases.places import Calendars, Places
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web.preconditions import IfMatch
from servicekit.web.routes import Answer, Routes
from servicekit.web.schemas import parse_date
from servicekit.wire.errors import Forbidden, Invalid


def place_routes(places: Places, calendars: Calendars) -> Routes:
    """Declare the operations on locations and calendars."""
    api = Routes("sites")

    @api.get("/sites/{id}/locations", action=Action.READ_SITES, errors=(SiteNotFound,))
    def list_locations(id: UUID, caller: Principal) -> LocationsView:
        """Show all locations of a site; `parent_id` makes a tree of them."""
        return places.all(id, caller)

    @api.post(
        "/sites/{id}/locations",
        action=Action.CHANGE_SITES,
        status=201,
        errors=(SiteNotFound, Forbidden, LocationNameTaken, TooManyLocations),
    )
    def create_location(id: UUID, body: LocationCreate, caller: Principal) -> Answer[LocationView]:
        """Add a location to a site, as its manager."""
        made = places.create(id, body, caller)
        return Answer(made, headers={"Location": f"/sites/{id}/locations/{made.id}"})

    @api.put(
        "/sites/{id}/locations/{location_id}",
        action=Action.CHANGE_SITES,
        errors=(SiteNotFound, LocationNotFound, Forbidden, LocationNameTaken),
    )
    def update_location(
        id: UUID, location_id: UUID, body: LocationUpdate, if_match: IfMatch, caller: Principal
    ) -> LocationView:
        """Rename or move a location, as the site's manager; what lies in it moves along."""
        return places.update(id, location_id, body, caller, if_match)

    @api.delete(
        "/sites/{id}/locations/{location_id}",
        action=Action.CHANGE_SITES,
        errors=(SiteNotFound, LocationNotFound, Forbidden, LocationInUse),
    )
    def delete_location(id: UUID, location_id: UUID, if_match: IfMatch, caller: Principal) -> LocationView:
        """Remove a location in which nothing is, as the site's manager; the answer is the location as it was."""
        return places.delete(id, location_id, caller, if_match)

    @api.get("/sites/{id}/calendar", action=Action.READ_SITES, errors=(SiteNotFound,))
    def list_calendar_days(id: UUID, query: CalendarQuery, caller: Principal) -> CalendarView:
        """Show which days a site works: those of its country, unless it says otherwise itself."""
        return calendars.days(id, query, caller)

    @api.put("/sites/{id}/calendar/{day}", action=Action.CHANGE_SITES, errors=(SiteNotFound, Forbidden))
    def update_calendar_day(id: UUID, day: str, body: DayUpdate, caller: Principal) -> DayView:
        """Decide whether the site works on a day, as its manager."""
        return calendars.set(id, _day(day), body.works, caller)

    @api.delete(
        "/sites/{id}/calendar/{day}",
        action=Action.CHANGE_SITES,
        errors=(SiteNotFound, CalendarDayNotFound, Forbidden),
    )
    def delete_calendar_day(id: UUID, day: str, caller: Principal) -> DayView:
        """Leave a day to the country's calendar again, as the manager; the answer is the day as it then is."""
        return calendars.forget(id, _day(day), caller)

    return api


def _day(text: str) -> date:
    try:
        return day_in_reach(parse_date(text))
    except ValueError as exc:
        raise Invalid.field("day", str(exc)) from exc
