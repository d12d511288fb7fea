"""The one operation of this process, declared for its OpenAPI document; `handler.py` answers it."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from service_tasks.errors import TaskNotFound, TooManyWatchers
from service_tasks.streams.schemas import TaskStream
from servicekit.identity.roles import Action
from servicekit.web.routes import Routes
from servicekit.wire.errors import DatabaseUnavailable

LAST_EVENT_ID = "Last-Event-ID"


def stream_routes() -> Routes:
    """Declare the event stream of a task."""
    api = Routes("tasks")

    @api.get(
        "/tasks/{id}/events",
        action=Action.READ_TASKS,
        errors=(TaskNotFound, DatabaseUnavailable, TooManyWatchers),
        headers={LAST_EVENT_ID: "the id of the last event that was seen; the stream goes on from there"},
        media_type="text/event-stream",
        no_content="The reader has seen the end already, and need not come back.",
    )
    def watch_task(id: UUID, headers: Mapping[str, str | None]) -> TaskStream:
        """Watch a task: its status and progress as they change.

        Begins with the present state, `status` and `progress`; ends with `end`. The newest state counts: what came
        and went between two looks is passed over.
        """
        raise NotImplementedError

    return api
