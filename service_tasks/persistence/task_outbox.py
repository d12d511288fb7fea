"""What the task service tells the others, and what it hears. docs/events.md is the catalogue.

Events of tasks are written only as TASK_EVENTS asks: each costs a row here and a few more until it is delivered.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.orm import Session

from service_tasks.domain.task import State
from servicekit.events import outbox
from servicekit.events.cloudevents import Event, EventData
from servicekit.web.schemas import Id, Timestamp

_ENDED = """
SELECT t.id, t.task_type, t.user_id, t.state AS status, t.attempts, t.error, t.created_at, t.completed_at
FROM tasks t WHERE t.id = ANY (%(ids)s::uuid[]) AND t.state = %(state)s ORDER BY t.id
"""


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


#: The data of each event.
CATALOGUE: dict[str, type[BaseModel]] = dict.fromkeys(("task.completed", "task.failed", "task.cancelled"), TaskData)


class UserDeleted(EventData):
    """What matters here of user.deleted."""

    id: Id


class TaskOutbox:
    """Writes events of tasks that just ended, in the transaction in which they did."""

    def __init__(self, states: Collection[str] = ()) -> None:
        """`states` are those whose reaching is told: completed, failed, cancelled, or none."""
        self._states = frozenset(states)

    def wanted(self, state: State) -> bool:
        """Whether anybody is told of tasks that reach this state."""
        return state.value in self._states

    def ended(self, session: Session, state: State, ids: Collection[UUID]) -> None:
        """Tell of those among the tasks, locked by this transaction, that are in this state now."""
        if not ids or not self.wanted(state):
            return
        parameters = {"ids": [str(item) for item in ids], "state": state.value}
        rows = session.connection().exec_driver_sql(_ENDED, parameters).mappings()
        outbox.add_all(session, [_event(dict(row)) for row in rows])


def _event(row: dict[str, Any]) -> Event:
    data = TaskData.model_validate(row)
    return Event(type=f"task.{data.status}", subject=data.id, data=data.model_dump(), time=data.completed_at)
