"""The tasks that tell the ends of other tasks. docs/callbacks.md is for whoever receives them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel

from service_tasks.domain.callback import CALLBACK_MAX_ATTEMPTS, CALLBACK_TYPE
from service_tasks.domain.task import DEFAULT_PRIORITY
from service_tasks.use_cases.tasks import NewTask
from servicekit.events.cloudevents import Event, write_event
from servicekit.process.ids import new_id
from servicekit.web.schemas import JsonValue
from servicekit.wire.envelope import Written, dump


class EndedTask(BaseModel):
    """The `data` of a callback. A result of more than 16 KiB is named in `omitted`; `result_url` is where it is."""

    id: UUID
    task_type: str
    title: str | None
    user_id: UUID | None
    status: Literal["completed", "failed", "cancelled"]
    attempts: int
    result: JsonValue
    omitted: list[str]
    result_url: str
    error: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime


def callback_of(row: Any) -> NewTask:
    """The task that tells this end, a row of `ended_with_callback`."""
    fields = dict(row._mapping)
    url, result = fields.pop("callback_url"), fields.pop("result")
    ended = EndedTask(
        **fields,
        result=None if result is None else Written(result),
        omitted=["result"] if fields["status"] == "completed" and result is None else [],
        result_url=f"/tasks/{fields['id']}/result",
    )
    # Nobody's task: what becomes of the user's own must not stop it from being told.
    event = Event(
        type=f"task.{ended.status}", subject=ended.id, data=ended.model_dump(), id=new_id(), time=ended.completed_at
    )
    return NewTask(
        id=event.id,
        task_type=CALLBACK_TYPE,
        title=None,
        user_id=None,
        payload=dump({"url": url, "event": write_event(event, "tasks")}).decode("utf-8"),
        priority=DEFAULT_PRIORITY,
        max_attempts=CALLBACK_MAX_ATTEMPTS,
        timeout_seconds=None,
        execute_at=None,
    )
