"""What follows the end of a task, in the same transaction: events for the other services, and callbacks.

docs/events.md has the catalogue, docs/callbacks.md is for receivers of callbacks. Only the events that TASK_EVENTS
lists are written: each costs a row here, and a few more until it is delivered.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.orm import Session

from service_tasks.domain.callback import CALLBACK_MAX_ATTEMPTS, CALLBACK_TYPE, LARGEST_RESULT_IN_CALLBACK
from service_tasks.domain.task import DEFAULT_PRIORITY, Lease, State
from service_tasks.engine.ports import ANNOUNCE_SECONDS, READY, cancel_announcement
from service_tasks.persistence.insertion import array, insert_many, optional_text
from service_tasks.persistence.statements import Statements
from service_tasks.use_cases.tasks import NewTask
from servicekit.events import outbox
from servicekit.events.cloudevents import Event, write_event
from servicekit.identity.reach import Reach
from servicekit.process.ids import new_id
from servicekit.web.schemas import JsonValue, Timestamp
from servicekit.wire.envelope import Written, dump


class TaskData(BaseModel):
    """A task that has ended. Its payload and result may be large; ask for them."""

    id: UUID
    task_type: str
    user_id: UUID | None
    status: Literal["completed", "failed", "cancelled"]
    attempts: int
    error: str | None
    created_at: Timestamp
    completed_at: Timestamp


class EndedTask(TaskData):
    """The `data` of a callback. A result of more than 16 KiB is named in `omitted`; `result_url` is where it is."""

    title: str | None
    started_at: datetime | None
    result: JsonValue
    omitted: list[str]
    result_url: str


#: The data of each event.
CATALOGUE: dict[str, type[BaseModel]] = dict.fromkeys(("task.completed", "task.failed", "task.cancelled"), TaskData)


class TaskEnds:
    """Every method works in the caller's transaction."""

    def __init__(self, event_states: Collection[str] = ()) -> None:
        """`event_states`: the states for which events are written: completed, failed, cancelled, or none."""
        self._event_states = frozenset(event_states)
        self._statements = Statements("queries.sql")
        self._announce_again_at = 0.0

    def has_events(self, state: State) -> bool:
        """Whether events are written for tasks that reach this state."""
        return state.value in self._event_states

    def cancel(self, session: Session, ids: Collection[UUID], *, reach: Reach) -> int:
        """Cancel the live ones among these and announce it to their workers; return their number."""
        of_caller = {"ids": [str(item) for item in ids], "reach": optional_text(reach.owner)}
        return self._cancelled(session, self._statements.rows(session, "cancel_many", **of_caller, reason=None))

    def cancel_of_user(self, session: Session, user_id: UUID, reason: str) -> None:
        """The same for every live task of a user."""
        rows = self._statements.rows(session, "cancel_of_user", user_id=str(user_id), reason=reason)
        self._cancelled(session, rows)

    def _cancelled(self, session: Session, rows: Sequence[Any]) -> int:
        held = [cancel_announcement(Lease(row.id, row.lease_no)) for row in rows if row.is_held]
        if held:
            self._statements.run(session, "announce_many", announcements=held)
        has_events = self.has_events(State.CANCELLED)
        self.follow(session, [row.id for row in rows if has_events or row.has_callback])
        return len(rows)

    def follow(self, session: Session, ids: Collection[UUID | str]) -> None:
        """Write the events and make the callbacks for these tasks, which this transaction has ended."""
        if not ids:
            return
        self._statements.run(session, "by_id")
        rows = self._statements.rows(
            session, "ended", ids=[str(item) for item in ids], largest=LARGEST_RESULT_IN_CALLBACK
        )
        outbox.add_all(session, [_event_of(row) for row in rows if row.status in self._event_states])
        self._call_back(session, [row for row in rows if row.callback_url is not None])

    def _call_back(self, session: Session, rows: Sequence[Any]) -> None:
        if not rows:
            return
        callbacks = [_callback_of(row) for row in rows]
        insert_many(session, callbacks, reach=Reach.all())
        self._statements.run(
            session,
            "link_callbacks",
            ids=array([str(row.id) for row in rows]),
            callbacks=array([str(callback.id) for callback in callbacks]),
        )
        # A commit with NOTIFY takes a server-wide lock; polls find the tasks that are not announced.
        if time.monotonic() >= self._announce_again_at:
            self._announce_again_at = time.monotonic() + ANNOUNCE_SECONDS
            self._statements.run(session, "announce", announcement=READY)


def _event_of(row: Any) -> Event:
    data = TaskData.model_validate(row, from_attributes=True)
    return Event(type=f"task.{data.status}", subject=data.id, data=data.model_dump(), time=data.completed_at)


def _callback_of(row: Any) -> NewTask:
    """The task that delivers this end."""
    fields = dict(row._mapping)
    url, result = fields.pop("callback_url"), fields.pop("result")
    ended = EndedTask(
        **fields,
        result=None if result is None else Written(result),
        omitted=["result"] if fields["status"] == "completed" and result is None else [],
        result_url=f"/tasks/{fields['id']}/result",
    )
    # Without a user: cancelling the user's own tasks must not stop the delivery.
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
