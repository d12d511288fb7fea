"""What comes in and goes out about sites."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from pydantic import Field

from service_sites.domain.people import SiteRole
from servicekit.web.preconditions import Resource
from servicekit.web.schemas import PageQuery, PageView, Timestamp, View


class DeadlineRulesView(View):
    """Within how many working days a work item of each severity is due; null: no day is set."""

    critical: int | None
    significant: int | None
    minor: int | None


class SiteView(Resource):
    """A building site."""

    untagged: ClassVar[frozenset[str]] = frozenset({"role"})

    id: UUID
    key: str = Field(description="how its work items' names begin: ABC-17")
    name: str
    time_zone: str
    calendar: str | None
    deadline_rules: DeadlineRulesView
    role: SiteRole | None = Field(description="yours on this site; null if you are not one of its people")
    created_at: Timestamp
    updated_at: Timestamp


class SiteQuery(PageQuery):
    """Which sites are wanted."""


class SitePage(PageView):
    """A page of sites."""

    sites: list[SiteView]
