"""Messages as they arrive, and rejected ones as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from service_tasks.domain.task import Status, status_named
from service_tasks.schemas.tasks import TaskCreate
from servicekit.web.paging import NewestPage, NewestQuery
from servicekit.web.schemas import View


def _new(name: str) -> str:
    if status_named(name) is not Status.PENDING:
        raise ValueError("must be New (or pending): a message can only ask for a new task")
    return name


class TaskMessage(TaskCreate):
    """A task as POST /tasks takes it. Some producers also state that it is new."""

    status: Annotated[str, AfterValidator(_new)] | None = Field(default=None, max_length=50)


class RejectedMessageQuery(NewestQuery):
    """Which part of the list is wanted."""


class MessageFault(View):
    """One thing wrong with one field of a message."""

    field: str
    message: str


class RejectedMessageView(View):
    """A message that made no task."""

    id: UUID
    source: str = Field(description="the queue it came from")
    message_id: str | None = Field(description="as its producer said")
    reason: str = Field(description="why it made no task")
    details: list[MessageFault]
    body: str = Field(description="its first 64 KiB (in lists 4 KiB) as text; bytes that are no UTF-8 are replaced")
    size: int = Field(description="the bytes of the whole body; beyond 1 MiB only the first 64 KiB are kept")
    received_at: datetime


class RejectedMessagePage(NewestPage):
    """One page of rejected messages, the newest first."""

    rejected: list[RejectedMessageView]
