"""Errors of tasks, schedules and messages.

Invalid   ⊃ UserDeleted
NotFound  ⊃ TaskNotFound, TaskTypeNotFound, ScheduleNotFound, MessageNotFound
Conflict  ⊃ TaskNotFinished, TaskStateConflict, UniqueKeyTaken, ScheduleNameTaken, MessageIncomplete, LimitReached
TooLarge  ⊃ PayloadTooLarge
Unavailable ⊃ TooManyWatchers
"""

from __future__ import annotations

from service_tasks.domain.task import MAX_PAYLOAD_BYTES
from servicekit.wire.errors import Conflict, FieldError, Invalid, NotFound, TooLarge, Unavailable


class UserDeleted(Invalid):
    """The user of this task was deleted.

    `details` names the field.
    """

    code = "user_not_found"

    def __init__(self, field: str = "user_id") -> None:
        super().__init__(details=[FieldError(field, "this user was deleted")])


class TaskNotFound(NotFound):
    """There is no task with this id.

    A DELETE says so of a task that has ended, too.
    """

    code = "task_not_found"


class TaskNotFinished(Conflict):
    """The task has no result yet: it has not ended."""

    code = "task_not_finished"


class TaskStateConflict(Conflict):
    """Only a failed or cancelled task can be run again."""

    code = "task_state_conflict"


class UniqueKeyTaken(Conflict):
    """Another task with this unique_key is pending or processing."""

    code = "unique_key_taken"


class TaskTypeNotFound(NotFound):
    """There is no task type of this name.

    No process knows it, no schedule and no pending task names it, and no worker has run it for a day.
    """

    code = "task_type_not_found"


class ScheduleNotFound(NotFound):
    """There is no schedule with this id."""

    code = "schedule_not_found"


class ScheduleNameTaken(Conflict):
    """Another schedule of this user has this name."""

    code = "schedule_name_taken"


class LimitReached(Conflict):
    """There are as many as there may be.

    Remove some first. The message names the limit.
    """

    code = "limit_reached"


class PayloadTooLarge(TooLarge):
    """The payload is too large.

    256 KiB as compact JSON are allowed.
    """

    code = "payload_too_large"

    def __init__(self, size: int, field: str = "payload") -> None:
        message = f"has {size} bytes as compact JSON; {MAX_PAYLOAD_BYTES} are allowed"
        super().__init__(f"{field}: {message}", details=[FieldError(field, message)])
        self._size = size

    def at(self, field: str) -> PayloadTooLarge:
        """The same error for a payload at this field."""
        return PayloadTooLarge(self._size, field)


class TooManyWatchers(Unavailable):
    """Too many event streams are open; try again.

    As many as EVENTS_WATCHERS: raise it, or run another such process.
    """

    code = "too_many_watchers"


class MessageNotFound(NotFound):
    """There is no rejected message with this id."""

    code = "message_not_found"


class MessageIncomplete(Conflict):
    """The message was too large to be kept whole, so it cannot be read again."""

    code = "message_incomplete"
