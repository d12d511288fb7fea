"""Request and response bodies of the audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

from servicekit.web.paging import QueryTime
from servicekit.web.schemas import Body, Id, JsonValue, Query, QueryInt, QueryText, Timestamp, View, not_before


class Refusal(Body):
    """How often the gateway answered an address with the same refusal in a minute."""

    example: ClassVar[Mapping[str, Any]] = {
        "id": "01a1fbc0-c864-7227-8405-f11570df12c1",
        "minute": "2026-11-20T10:00:00Z",
        "address": "198.51.100.7",
        "reason": "invalid_token",
        "count": 3,
    }

    id: Id
    minute: Timestamp
    address: Annotated[str, Field(max_length=64)] | None
    reason: str = Field(pattern=r"^[a-z_]{1,64}$")
    count: int = Field(ge=1)


class ForcedCircuit(Body):
    """A circuit of the gateway that somebody has set by hand."""

    example: ClassVar[Mapping[str, Any]] = {
        "id": "01a1fbc0-c864-7227-8405-f11570df12c2",
        "at": "2026-11-20T10:00:00Z",
        "actor": "01a1fbc0-c7b2-73cb-959e-ecfd3cf6f650",
        "address": "198.51.100.7",
        "circuit": "orders",
        "state": "open",
    }

    id: Id
    at: Timestamp
    actor: Id | None
    address: Annotated[str, Field(max_length=64)]
    circuit: str = Field(pattern=r"^[a-z_]{1,64}$")
    state: Literal["open", "closed", "auto"]


class GatewayReport(Body):
    """What the gateway tells: whom it refused something, and who set its circuits."""

    example: ClassVar[Mapping[str, Any]] = {"refusals": [Refusal.example]}

    refusals: list[Refusal] = Field(default_factory=list, max_length=200)
    circuits: list[ForcedCircuit] = Field(default_factory=list, max_length=200)

    @model_validator(mode="after")
    def _tells_something(self) -> Self:
        if not self.refusals and not self.circuits:
            raise ValueError("must have refusals or circuits")
        return self


class AppendedView(View):
    """What was written."""

    entries: int


class AuditQuery(Query):
    """Which part of the audit is wanted, the newest first."""

    limit: QueryInt = Field(default=50, ge=1, le=100, description="how many at most")
    after: Id | None = Field(default=None, description="the `next` of the page before")
    actor: Id | None = Field(default=None, description="who did it")
    subject: Id | None = Field(default=None, description="to whom it was done")
    action: QueryText | None = Field(default=None, description="what was done, such as user.disabled")
    happened_from: QueryTime | None = Field(default=None, description="at this moment or later")
    happened_to: Annotated[QueryTime, not_before("happened_from")] | None = Field(
        default=None, description="before this moment"
    )


class AuditEntry(View):
    """Who did what to whom."""

    id: UUID
    happened_at: Timestamp
    actor: UUID | None = Field(description="who did it; null for the machine's own")
    actor_name: str | None = Field(description="what they are called now; null of whoever was deleted")
    action: str
    subject: UUID | None = Field(description="to whom")
    subject_name: str | None
    address: str | None = Field(description="from where")
    request_id: str | None
    details: JsonValue


class AuditPage(View):
    """A page of the audit."""

    limit: int
    next: UUID | None = Field(description="send it as `after` to get the next page; null on the last")
    entries: list[AuditEntry]
