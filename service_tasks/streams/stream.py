"""The text of an event stream (https://html.spec.whatwg.org/multipage/server-sent-events.html). No I/O.

The last event of a change has the id, so a client cut off in the middle of a change gets all of it again.
"""

from __future__ import annotations

from service_tasks.domain.task import Status
from service_tasks.domain.watched import WatchedTask
from service_tasks.streams.feed import TaskSnapshot
from service_tasks.streams.schemas import EndEvent, EndStatus, ProgressEvent, StatusEvent
from servicekit.web.schemas import View
from servicekit.wire.envelope import Written, dump

KEEP_ALIVE = b": still here\n\n"
#: The start of a stream without news, so that the client knows that it is open.
NO_NEWS = b": nothing new\n\n"


def retry(milliseconds: int) -> bytes:
    """The field that tells how long to wait before reconnecting."""
    return b"retry: %d\n\n" % milliseconds


def last_event_version(field: str | None) -> int | None:
    """The version in a Last-Event-ID field; None without one, or for one never sent by this service."""
    if field is None or not (field.isascii() and field.isdigit() and len(field) <= 20):
        return None
    return int(field)


def events_of(now: TaskSnapshot, before: WatchedTask | None) -> list[tuple[str, bytes]]:
    """The events, with their names, that lead from the state sent `before` (None: nothing) to the present one."""
    task = now.task
    made: list[tuple[str, View]] = []
    if not now.gone:
        if before is None or task.differs_in_status(before):
            made.append(("status", _status(task)))
        if before is None or task.differs_in_progress(before):
            made.append(("progress", _progress(task)))
    if now.is_last:
        made.append(("end", _purged(task) if now.gone else _end(task)))
    return [
        (name, _text(name, data, now.version if number == len(made) else None))
        for number, (name, data) in enumerate(made, start=1)
    ]


def _text(name: str, data: View, version: int | None) -> bytes:
    # `dump` writes JSON without line breaks, so one data line is enough.
    identity = b"" if version is None else b"id: %d\n" % version
    return b"event: %b\n%bdata: %b\n\n" % (name.encode("ascii"), identity, dump(data))


def _status(task: WatchedTask) -> StatusEvent:
    return StatusEvent(
        id=task.id,
        task_type=task.task_type,
        status=task.status,
        attempts=task.attempts,
        max_attempts=task.max_attempts,
        execute_at=task.execute_at,
        error=task.error,
        created_at=task.created_at,
        updated_at=task.updated_at,
        started_at=task.started_at,
        completed_at=task.completed_at,
    )


def _progress(task: WatchedTask) -> ProgressEvent:
    return ProgressEvent(id=task.id, percent=task.progress_percent, message=task.progress_message)


def _end(task: WatchedTask) -> EndEvent:
    left_out = task.status is Status.COMPLETED and task.result is None
    return EndEvent(
        id=task.id,
        status=EndStatus(task.status),
        result=None if task.result is None else Written(task.result),
        omitted=["result"] if left_out else [],
        result_url=f"/tasks/{task.id}/result",
        error=task.error,
        completed_at=task.completed_at,
        duration=None if task.duration is None else round(task.duration, 3),
    )


def _purged(task: WatchedTask) -> EndEvent:
    return EndEvent(
        id=task.id,
        status=EndStatus.PURGED,
        result=None,
        omitted=[],
        result_url=None,
        error=None,
        completed_at=None,
        duration=None,
    )
