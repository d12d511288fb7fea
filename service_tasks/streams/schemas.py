"""The data of a stream's events."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import Field

from service_tasks.domain.task import Status
from servicekit.web.schemas import JsonValue, View


class EndStatus(StrEnum):
    """How a task ended; `purged`: its record was removed."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PURGED = "purged"


class StatusEvent(View):
    """`status`: where the task stands."""

    id: UUID
    task_type: str
    status: Status
    attempts: int = Field(description="how often it has been started")
    max_attempts: int
    execute_at: datetime = Field(description="when the task, or its next attempt, is due")
    error: str | None = Field(description="why the last attempt failed")
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class ProgressEvent(View):
    """`progress`: how far it is."""

    id: UUID
    percent: int = Field(ge=0, le=100)
    message: str | None


class EndEvent(View):
    """`end`: nothing follows; the stream closes."""

    id: UUID
    status: EndStatus
    result: JsonValue = Field(description="what the handler gave, unless it is large")
    omitted: list[str] = Field(description="`result` where it was left out for being large")
    result_url: str | None = Field(description="where the result is; null for a purged task")
    error: str | None
    completed_at: datetime | None
    duration: float | None = Field(description="seconds the last attempt took")


class TaskStream(View):
    """The data of each event, by the event's name."""

    status: StatusEvent
    progress: ProgressEvent
    end: EndEvent
