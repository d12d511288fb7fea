"""What comes in and goes out about steps of work items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from service_sites.domain.item import Resolution, WorkState
from service_sites.domain.steps import Step, StepRequest
from service_sites.schemas.places import CalendarDate
from service_sites.schemas.text import Label, Remark
from servicekit.web.schemas import Body, Id, Timestamp, View

StepWord = Literal[
    "submit", "admit", "assign", "move_deadline", "start", "report_done", "dispute", "settle", "accept", "return",
    "accept_as_is", "reopen", "void",
]  # fmt: skip
#: The most items of one request.
MOST_ITEMS = 500


class StepFields(Body):
    """A step, and what it needs to be said with it. A field that the step does not take is refused."""

    step: StepWord
    reason: Remark | None = Field(
        default=None,
        description="needed to dispute, return, reopen or move a deadline, and to override as an administrator",
    )
    note: Remark | None = Field(default=None, description="report_done: what was done")
    assignee_id: Id | None = Field(default=None, description="assign: an engineer, manager or contractor of the site")
    organisation: Label | None = Field(
        default=None, description="assign: who is responsible, unless that is the assignee's; alone, it is nobody yet"
    )
    due_on: CalendarDate | None = Field(
        default=None, description="submit, admit, assign, move_deadline, reopen: a date at the site, not before today"
    )
    outcome: Literal["open", "void"] | None = Field(default=None, description="settle: which state")
    resolution: Literal["duplicate", "no_defect", "mistake"] | None = Field(
        default=None, description="void, and settle as void: why"
    )
    duplicate_of: Id | None = Field(default=None, description="of a duplicate: another item of the site")
    phone_at: Timestamp | None = Field(default=None, description="when it was taken, by a phone's clock")

    def request(self) -> StepRequest:
        """The step as the rules take it."""
        return StepRequest(
            Step(self.step),
            reason=self.reason,
            note=self.note,
            assignee_id=self.assignee_id,
            organisation=self.organisation,
            due_on=self.due_on,
            outcome=None if self.outcome is None else WorkState(self.outcome),
            resolution=None if self.resolution is None else Resolution(self.resolution),
            duplicate_of=self.duplicate_of,
        )

    def said(self) -> dict[str, Any]:
        """All of it that was said, for a fingerprint."""
        return {name: value for name in sorted(StepFields.model_fields) if (value := getattr(self, name)) is not None}


class StepBody(StepFields):
    """A step of one work item."""

    example: ClassVar[Mapping[str, Any]] = {
        "step": "return",
        "op_id": "01a1fbc0-c7b2-73cb-959e-ecfd3cf6f650",
        "reason": "The joint is still open.",
    }

    op_id: Id = Field(
        description="made by you, for this step alone; the same request with it again takes no second one"
    )


class ItemSeen(Body):
    """A work item as its client saw it."""

    id: Id
    version: int = Field(ge=1, description="the one you have seen")
    op_id: Id = Field(description="as of one step")


class BulkStepBody(StepFields):
    """The same step of many work items."""

    example: ClassVar[Mapping[str, Any]] = {
        "step": "assign",
        "assignee_id": "01a1fbc0-c7b2-73cb-959e-ecfd3cf6f651",
        "items": [
            {
                "id": "01a1fbc0-c7b2-73cb-959e-ecfd3cf6f652",
                "version": 1,
                "op_id": "01a1fbc0-c7b2-73cb-959e-ecfd3cf6f650",
            }
        ],
    }

    items: Annotated[list[ItemSeen], Field(min_length=1, max_length=MOST_ITEMS)]


class RefusedField(View):
    """What is wrong with one field."""

    field: str
    message: str


class StepError(View):
    """Why a step was not taken: what `POST /work-items/{id}/steps` would have answered."""

    code: str
    message: str
    details: list[RefusedField]


class StepOutcome(View):
    """What became of the step of one work item."""

    id: UUID
    op_id: UUID
    status: int = Field(description="as of an answer for this item alone: 200, or that of its error")
    replayed: bool = Field(description="whether an earlier request with this op_id took the step")
    state: str | None = Field(description="after the step; null if it was not taken")
    version: int | None = Field(description="after the step; null if it was not taken")
    error: StepError | None


class StepOutcomes(View):
    """What became of a step of many work items, in the order of the request."""

    batch_id: UUID = Field(description="shared by the whole history of this request")
    taken: int
    refused: int
    items: list[StepOutcome]
