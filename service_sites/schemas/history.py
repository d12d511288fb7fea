"""Requests and answers about what happened to work items."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from service_sites.schemas.items import ResolutionWord, StateWord
from servicekit.web.schemas import Date, Query, QueryInt, Timestamp, View


class HistoryQuery(Query):
    """Which part of an item's history is wanted."""

    limit: Annotated[QueryInt, Field(ge=1, le=100)] = Field(default=50, description="how many at most")
    after: Annotated[QueryInt, Field(ge=0, le=2**53)] = Field(default=0, description="the `next` of the page before")


class ActorView(View):
    """Who did something, as they were then."""

    id: UUID | None
    name: str
    role: str = Field(description="on the site; empty: an administrator who was none of its people")
    organisation: str | None = Field(description="null, as the position, where contractors ask about others")
    position: str | None


class HistoryEntry(View):
    """Something that happened to a work item."""

    step: str = Field(description="`created`, `changed`, `deleted`, `person_left`, or the step that was taken")
    from_state: StateWord | None
    to_state: StateWord | None
    changes: Any = Field(description="by field, what it was and what it is")
    reason: str
    note: str
    actor: ActorView
    override: bool = Field(description="an administrator did what no role on the site allowed them")
    at: Timestamp
    phone_at: Timestamp | None = Field(description="by the clock of a phone")
    batch_id: UUID | None = Field(description="shared by what was done to several items at once")
    version: int = Field(description="of the item from then on, like the fields below: greater for what happened later")
    organisation: str
    assignee_name: str
    due_on: Date | None
    original_due_on: Date | None
    resolution: ResolutionWord | None
    visible_to_customer: bool


class HistoryPage(View):
    """A part of an item's history, the oldest first."""

    history: list[HistoryEntry]
    next: int | None = Field(description="send it as `after` to get the next page; null on the last")
