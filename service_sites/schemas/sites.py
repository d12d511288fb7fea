"""What comes in and goes out about sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from service_sites.domain.calendars import is_country, is_time_zone
from service_sites.schemas.text import Label, Title
from servicekit.web.preconditions import Resource
from servicekit.web.schemas import Body, Id, PageQuery, PageView, Timestamp, Update, View, unsent

SiteRoleWord = Literal["engineer", "manager", "executive", "customer", "contractor"]
#: As long as an address may be, and as short.
Address = Annotated[str, StringConstraints(min_length=3, max_length=254), Field(json_schema_extra={"format": "email"})]


def _time_zone(value: str) -> str:
    if not is_time_zone(value):
        raise ValueError("must be a time zone of the IANA database, such as Europe/Moscow")
    return value


def _country(value: str) -> str:
    if not is_country(value):
        raise ValueError("must be a country whose holidays are known, by its two letters, such as RU")
    return value


TimeZone = Annotated[str, StringConstraints(max_length=64), AfterValidator(_time_zone)]
Country = Annotated[str, StringConstraints(min_length=2, max_length=2), AfterValidator(_country)]
WorkingDayCount = Annotated[int, Field(ge=0, le=1000)]


class DeadlineRules(Body):
    """Within how many working days a work item of each severity is due, unless somebody says; null: no day is set."""

    critical: WorkingDayCount | None = 1
    significant: WorkingDayCount | None = 10
    minor: WorkingDayCount | None = None


class PersonNamed(Body):
    """Somebody with an account, by exactly one of address and id."""

    email: Address | None = Field(default=None, description="exactly that of the account, whatever the case")
    user_id: Id | None = Field(default=None, description="in place of the address")
    organisation: Label = Field(default="", description="whom they work for")
    position: Label = Field(default="", description="what they are there", examples=["site manager"])

    @model_validator(mode="after")
    def _is_named_once(self) -> Self:
        if (self.email is None) == (self.user_id is None):
            raise ValueError("must have either email or user_id")
        return self


class SiteCreate(Body):
    """A new site with its first manager."""

    example: ClassVar[Mapping[str, Any]] = {
        "key": "NORTH",
        "name": "Северный квартал",
        "time_zone": "Europe/Moscow",
        "manager": {"email": "user@example.com", "organisation": "Строитель", "position": "начальник участка"},
    }

    key: str = Field(
        pattern=r"^[A-Z][A-Z0-9]{1,9}$",
        description="how its work items' names begin, such as NORTH-17; it stays",
        examples=["NORTH"],
    )
    name: Title
    time_zone: TimeZone = Field(description="by its IANA name; days begin and end there", examples=["Europe/Moscow"])
    calendar: Country | None = Field(
        default=None, description="the country whose holidays are kept; without one, Monday to Friday are worked"
    )
    deadline_rules: DeadlineRules = Field(default_factory=DeadlineRules)
    manager: PersonNamed


class DeadlineRulesView(View):
    """Within how many working days a work item of each severity is due; null: no day is set."""

    critical: int | None
    significant: int | None
    minor: int | None


class SiteView(Resource):
    """A building site."""

    untagged: ClassVar[frozenset[str]] = frozenset({"role"})

    id: UUID
    key: str = Field(description="how its work items' names begin: NORTH-17")
    name: str
    time_zone: str
    calendar: str | None
    deadline_rules: DeadlineRulesView
    role: SiteRoleWord | None = Field(description="yours on this site; null if you are not one of its people")
    created_at: Timestamp
    updated_at: Timestamp


class SiteUpdate(Update):
    """The fields to change; the others stay as they are. A site as GET shows it may be sent back whole."""

    example: ClassVar[Mapping[str, Any]] = {"name": "Северный квартал"}
    shown = SiteView
    fixed = Update.fixed | {"key"}

    name: Title = unsent()
    time_zone: TimeZone = unsent()
    calendar: Country | None = unsent()
    deadline_rules: DeadlineRules = unsent()


class SiteQuery(PageQuery):
    """Which sites are wanted."""


class SitePage(PageView):
    """A page of sites."""

    sites: list[SiteView]
