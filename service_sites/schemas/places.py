"""What comes in and goes out about the places and calendars of sites."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import AfterValidator, Field

from service_sites.schemas.text import Title
from servicekit.web.preconditions import Resource
from servicekit.web.schemas import Body, Date, Id, Query, Update, View, not_before, unsent

#: A calendar reaches so far, and shows so many days at once.
FIRST_DAY, LAST_DAY = date(1900, 1, 1), date(2199, 12, 31)
MOST_DAYS = 400
Position = Annotated[int, Field(ge=0, le=1_000_000, description="among its siblings; of equal ones the name decides")]


def day_in_reach(day: date) -> date:
    """Return the day; raises ValueError for one to which no calendar reaches."""
    if not FIRST_DAY <= day <= LAST_DAY:
        raise ValueError(f"must be from {FIRST_DAY} to {LAST_DAY}")
    return day


CalendarDate = Annotated[Date, AfterValidator(day_in_reach)]


class LocationCreate(Body):
    """A new location."""

    example: ClassVar[Mapping[str, Any]] = {"name": "Корпус 1"}

    name: Title = Field(description="no other location beside it has this name")
    parent_id: Id | None = Field(default=None, description="the location that it lies in; eight levels at most")
    position: Position = 0


class LocationView(Resource):
    """A place on a site: a building, a section, a floor, a room."""

    id: UUID
    site_id: UUID
    parent_id: UUID | None
    name: str
    position: int


class LocationUpdate(Update):
    """The fields to change; the others stay as they are. A location as GET shows it may be sent back whole."""

    example: ClassVar[Mapping[str, Any]] = {"name": "Корпус 1"}
    shown = LocationView
    fixed = Update.fixed | {"site_id"}

    name: Title = unsent()
    parent_id: Id | None = unsent("null: it lies in no other")
    position: Position = unsent()


class LocationsView(View):
    """All locations of a site, each after those before it and beside it."""

    locations: list[LocationView]


class CalendarQuery(Query):
    """Which days are wanted."""

    from_: CalendarDate | None = Field(default=None, alias="from", description="the first; today at the site if absent")
    to: Annotated[CalendarDate, not_before("from_", "from")] | None = Field(
        default=None, description=f"the last; 30 days later if absent, and at most {MOST_DAYS - 1}"
    )


class DayView(View):
    """A day at a site."""

    day: Date
    works: bool
    holiday: str | None = Field(description="its name, in the language of the site's country")
    is_exception: bool = Field(description="whether the site itself decided so")


class CalendarView(View):
    """Days at a site."""

    days: list[DayView]


class DayUpdate(Body):
    """What a site says of a day, whatever its country says."""

    example: ClassVar[Mapping[str, Any]] = {"works": True}

    works: bool
