"""What comes in and goes out about the people of sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

from pydantic import Field

from service_sites.schemas.sites import PersonNamed, SiteRoleWord
from service_sites.schemas.text import Label
from servicekit.web.preconditions import Resource
from servicekit.web.schemas import PageQuery, PageView, Timestamp, Update, unsent


class MemberCreate(PersonNamed):
    """Somebody who is to be one of the site's people."""

    example: ClassVar[Mapping[str, Any]] = {"email": "user@example.com", "role": "engineer"}

    role: SiteRoleWord


class MemberView(Resource):
    """One of a site's people."""

    user_id: UUID
    name: str
    role: SiteRoleWord
    organisation: str | None = Field(description="null where customers and contractors ask about others")
    position: str | None = Field(description="the same")
    disabled: bool = Field(description="whether they may not log in at the moment")
    created_at: Timestamp
    updated_at: Timestamp


class MemberUpdate(Update):
    """The fields to change; the others stay as they are."""

    example: ClassVar[Mapping[str, Any]] = {"role": "manager"}

    role: SiteRoleWord = unsent()
    organisation: Label = unsent()
    position: Label = unsent()


class MemberQuery(PageQuery):
    """Which of the site's people are wanted."""


class MemberPage(PageView):
    """Some of a site's people, by their names."""

    members: list[MemberView]
