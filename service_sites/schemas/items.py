"""Requests and answers about work items. Customers are shown a model of their own, an allow-list."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from service_sites.schemas.places import CalendarDate
from service_sites.schemas.text import Label, Legible, Remark, Sentences, Tidied
from servicekit.web.paging import SortedPage, SortedQuery
from servicekit.web.preconditions import Resource
from servicekit.web.schemas import (
    Amount,
    Body,
    Date,
    Id,
    Query,
    QueryFlag,
    QueryInt,
    QueryText,
    Timestamp,
    Update,
    View,
    Visible,
    not_before,
    unsent,
)

KindWord = Literal["defect", "task", "customer_remark"]
StateWord = Literal["draft", "open", "in_progress", "ready", "returned", "disputed", "closed", "void"]
#: All that a customer is told of a state.
CustomerStateWord = Literal["accepted", "in_work", "done"]
ResolutionWord = Literal["fixed", "accepted_as_is", "duplicate", "no_defect", "mistake"]
SeverityWord = Literal["critical", "significant", "minor"]

#: The states that a customer knows by one word; the others are hidden from them.
CUSTOMER_STATES: Mapping[CustomerStateWord, tuple[StateWord, ...]] = {
    "accepted": ("draft", "open"),
    "in_work": ("in_progress", "returned", "ready", "disputed"),
    "done": ("closed",),
}


def _decimals(places: int) -> Any:
    unit = Decimal(1).scaleb(-places)
    return AfterValidator(lambda value: abs(rounded) if (rounded := value.quantize(unit)) == 0 else rounded)


def _sent_states(value: str) -> str:
    for word in value.split(","):
        if word not in _STATE_WORDS:
            raise ValueError(f"must be some of {', '.join(_STATE_WORDS)}, with commas between them")
    return value


_STATE_WORDS = (
    *("draft", "open", "in_progress", "ready", "returned", "disputed", "closed", "void"),
    *CUSTOMER_STATES,
)
Title = Annotated[str, Field(min_length=1, max_length=255), Visible]
Description = Annotated[Sentences, StringConstraints(max_length=10_000)]
#: Reports group by some: a space that nobody sees makes no other word.
Word = Annotated[str, Tidied, StringConstraints(max_length=100), Visible]
Line = Annotated[str, Field(max_length=500), Visible]
Tags = Annotated[list[Annotated[str, Field(min_length=1, max_length=50), Visible]], Field(max_length=20)]
Requirements = Annotated[list[Annotated[str, Field(min_length=1, max_length=500), Visible]], Field(max_length=20)]
Priority = Annotated[int, Field(ge=1, le=4)]
Pin = Annotated[Amount, Field(ge=0, le=1), _decimals(5), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]
Latitude = Annotated[
    Amount, Field(ge=-90, le=90), _decimals(6), WithJsonSchema({"type": "number", "minimum": -90, "maximum": 90})
]
Longitude = Annotated[
    Amount, Field(ge=-180, le=180), _decimals(6), WithJsonSchema({"type": "number", "minimum": -180, "maximum": 180})
]
States = Annotated[QueryText, AfterValidator(_sent_states)]

_KIND = "`customer_remark` is what a customer makes, and nobody else"
_DRAFT = "not yet for others; a customer's remark always is one, until a manager admits it"
_SEVERITY = "how dangerous it is"
_PRIORITY = "the order of work, 1 first"
_ORGANISATION = "who is responsible"
_ASSIGNEE = "one of the site's people"
_DUE = "a date at the site, which is not late yet; of a new item by the site's rules unless named"
_PIN = "a place on the plan, from its left, as a part of its width; with the other"
_REASON = "required of an administrator for what their role on the site does not allow"
_OF_OWN_REMARKS = "of your own remarks; null of everything else"
_OCCURRED = "by the clock of whoever noticed it"


class WorkItemCreate(Body):
    """A new work item. Its number is the site's next."""

    example: ClassVar[Mapping[str, Any]] = {
        "title": "Crack above the window",
        "severity": "significant",
        "place": "Building 2, floor 3",
    }

    kind: KindWord = Field(default="defect", description=_KIND)
    title: Title = Field(examples=["Трещина над окном"])
    description: Description = ""
    type: Word = ""
    subtype: Word = ""
    root_cause: Word = ""
    severity: SeverityWord | None = Field(default=None, description=_SEVERITY)
    priority: Priority | None = Field(default=None, description=_PRIORITY)
    organisation: Label = Field(default="", description=_ORGANISATION)
    assignee_id: Id | None = Field(default=None, description=_ASSIGNEE)
    due_on: CalendarDate | None = Field(default=None, description=_DUE)
    subject: Line = Field(default="", description="the work or the element that is concerned")
    requirement_refs: Requirements = Field(default_factory=list, description="what is violated, with its clause")
    location_id: Id | None = Field(default=None, description="one of the site's locations")
    place: Line = ""
    axes: Word = ""
    plan_version_id: Id | None = None
    pin_x: Pin | None = Field(default=None, description=_PIN)
    pin_y: Pin | None = None
    latitude: Latitude | None = None
    longitude: Longitude | None = None
    occurred_at: Timestamp | None = Field(default=None, description=_OCCURRED)
    visible_to_customer: bool = False
    tags: Tags = Field(default_factory=list)
    draft: bool = Field(default=False, description=_DRAFT)
    reason: Remark | None = Field(default=None, description=_REASON)


class PersonView(View):
    """A person, by the name they had when they came to be named here."""

    id: UUID | None = Field(description="null: they have left, or nobody logs in here")
    name: str


class WorkItemView(Resource):
    """A work item. Its ETag is its version, in quotes."""

    id: UUID
    site_id: UUID
    number: int = Field(description="on its site")
    key: str = Field(description="the site's key and the number: ABC-17")
    kind: KindWord
    state: StateWord
    resolution: ResolutionWord | None = Field(description="how it came to its end")
    title: str
    description: str
    type: str
    subtype: str
    root_cause: str
    severity: SeverityWord | None = Field(description=_SEVERITY)
    priority: int | None = Field(description=_PRIORITY)
    organisation: str = Field(description=_ORGANISATION)
    assignee: PersonView | None
    author: PersonView
    done_by_id: UUID | None = Field(
        description="who reported it done; null while that is still to come, and to a contractor if it was another"
    )
    done_by_organisation: str
    subject: str
    requirement_refs: list[str]
    location_id: UUID | None
    location: str | None = Field(description="its name")
    place: str
    axes: str
    plan_version_id: UUID | None
    pin_x: Decimal | None
    pin_y: Decimal | None
    latitude: Decimal | None
    longitude: Decimal | None
    due_on: Date | None = Field(description="a date at the site; that day it is not late yet")
    original_due_on: Date | None = Field(description="the first that was set")
    overdue: bool = Field(description="the date has passed, and nobody has reported it done")
    occurred_at: Timestamp | None = Field(description=_OCCURRED)
    created_at: Timestamp
    updated_at: Timestamp
    submitted_at: Timestamp | None
    first_closed_at: Timestamp | None
    closed_at: Timestamp | None
    reopen_count: int
    visible_to_customer: bool
    tags: list[str]
    duplicate_of: UUID | None = Field(description="null where a contractor asks: it may be another's")
    version: int = Field(description="of its fields and steps, from 1")
    permitted_steps: list[str] = Field(description="those that you may take now, with the fields that they need")

    @property
    def etag(self) -> str:
        """What changes by itself, or with the reader, does not affect it."""
        return f'"{self.version}"'


class CustomerWorkItemView(Resource):
    """A work item, as far as a customer is told of it."""

    id: UUID
    site_id: UUID
    kind: KindWord
    title: str
    description: str | None = Field(description=_OF_OWN_REMARKS)
    place: str | None = Field(description=_OF_OWN_REMARKS)
    location_id: UUID | None
    location: str | None = Field(description="its name")
    state: CustomerStateWord
    created_at: Timestamp
    due_on: Date | None
    done_on: Date | None = Field(description="a date at the site")
    editable: bool = Field(description="whether you may still correct it: your own remark, until a manager admits it")


class _AnyWorkItemView(WorkItemView):
    """All that GET shows to anybody."""

    done_on: Date | None
    editable: bool


class WorkItemPut(Update):
    """A new work item under the id of the path, or the fields to change. What GET shows may be sent back whole."""

    example: ClassVar[Mapping[str, Any]] = {
        "site_id": "01a1fbc0-c7b2-73cb-959e-ecfd3cf6f650",
        "title": "Crack above the window",
    }
    shown = _AnyWorkItemView
    fixed = frozenset({"id"})

    site_id: Id = unsent("of a new one required; then it stays")
    kind: KindWord = unsent(f"stays; {_KIND}")
    title: Title = unsent("of a new one required")
    description: Description = unsent()
    type: Word = unsent()
    subtype: Word = unsent()
    root_cause: Word = unsent()
    severity: SeverityWord | None = unsent(_SEVERITY)
    priority: Priority | None = unsent(_PRIORITY)
    organisation: Label = unsent(f"{_ORGANISATION}; once submitted by the step `assign` alone")
    assignee_id: Id | None = unsent(f"{_ASSIGNEE}; once submitted by the step `assign` alone")
    due_on: CalendarDate | None = unsent("a date at the site; once submitted by the step `move_deadline` alone")
    subject: Line = unsent("the work or the element that is concerned")
    requirement_refs: Requirements = unsent("what is violated, with its clause")
    location_id: Id | None = unsent("one of the site's locations")
    place: Line = unsent()
    axes: Word = unsent()
    plan_version_id: Id | None = unsent()
    pin_x: Pin | None = unsent(_PIN)
    pin_y: Pin | None = unsent()
    latitude: Latitude | None = unsent()
    longitude: Longitude | None = unsent()
    occurred_at: Timestamp | None = unsent(f"stays; {_OCCURRED}")
    visible_to_customer: bool = unsent()
    tags: Tags = unsent()
    draft: bool = unsent(f"of a new one: {_DRAFT}")
    reason: Remark = unsent(_REASON)


#: Filters by what a customer is not told. With one of these a list has nothing that its reader sees as a customer.
INNER_FILTERS = ("overdue", "unassigned", "assignee_id", "organisation", "type", "severity", "priority")


class WorkItemQuery(SortedQuery):
    """Which work items are wanted. By what customers are not told, nothing is found for them."""

    sort: Literal["-created_at", "created_at", "due_on", "-due_on", "priority", "-priority", "number", "-number"] = (
        Field(
            default="-created_at",
            description="the field to sort by, with a minus sign descending; `number` takes a site_id. What has no "
            "date or priority comes last, and with a minus sign first",
        )
    )
    site_id: Id | None = Field(default=None, description="of this site")
    state: States | None = Field(
        default=None, description="one or several, with commas between them; or what customers are told of a state"
    )
    overdue: QueryFlag | None = Field(default=None, description="whether it is late")
    mine: QueryFlag = Field(default=False, description="assigned to you; of a customer: your own remarks")
    unassigned: QueryFlag | None = Field(
        default=None, description="whether nobody is to do it: no assignee, or one who has left, and no organisation"
    )
    assignee_id: Id | None = Field(default=None, description="assigned to this person")
    registered_by: Id | None = Field(
        default=None, description="registered by this person; a customer finds by their own id alone"
    )
    organisation: Label | None = Field(default=None, description="of which this organisation is responsible")
    location_id: Id | None = Field(default=None, description="at this location or within it")
    counted_in: str | None = Field(
        default=None, max_length=4000, description="counted in this figure of a report, as its link says"
    )
    kind: KindWord | None = None
    type: Word | None = None
    severity: SeverityWord | None = None
    priority: Annotated[QueryInt, Field(ge=1, le=4)] | None = None
    due_from: Date | None = Field(default=None, description="due on this date or later")
    due_to: Annotated[Date, not_before("due_from")] | None = Field(
        default=None, description="due on this date or earlier"
    )
    q: Annotated[QueryText, Field(max_length=200)] | None = Field(
        default=None, description="part of the title or, unless you are a customer, of the key; whatever the case"
    )


class WorkItemDelete(Query):
    """How a draft is deleted."""

    reason: Annotated[QueryText, Field(min_length=1), Tidied, Legible] | None = Field(default=None, description=_REASON)


class WorkItemPage(SortedPage):
    """A page of work items."""

    limit: int = Field(
        description="how many were shown at most: fewer than asked for where that is over 1 MiB of items"
    )
    work_items: list[WorkItemView | CustomerWorkItemView]
