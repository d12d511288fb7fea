"""A task as watchers see it. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from service_tasks.domain.task import ENDED_STATES, State, Status, public_status
from servicekit.identity.reach import Reach

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Watch(NamedTuple):
    """A task, and which rows its watcher may see."""

    task_id: UUID
    reach: Reach


@dataclass(frozen=True, slots=True)
class WatchedTask:
    """A task at one moment. `result` is JSON text; None if there is none or it is large."""

    id: UUID
    state: State
    task_type: str
    attempts: int
    max_attempts: int
    execute_at: datetime
    progress_percent: int
    progress_message: str | None
    result: str | None
    error: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    duration: float | None

    @property
    def status(self) -> Status:
        return public_status(self.state)

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED_STATES

    def differs_in_status(self, other: WatchedTask) -> bool:
        """Whether more than progress has changed."""
        return any(
            getattr(self, name) != getattr(other, name)
            for name in ("status", "attempts", "max_attempts", "execute_at", "error", "started_at", "completed_at")
        )

    def differs_in_progress(self, other: WatchedTask) -> bool:
        return (self.progress_percent, self.progress_message) != (other.progress_percent, other.progress_message)


def version_after(task: WatchedTask, before: int) -> int:
    """A number that grows with every change seen: the microseconds of `updated_at`, the same in every process.

    A transaction that waited for a row lock may carry the earlier of two times, so the time alone could go back; the
    number then grows by one instead.
    """
    return max((task.updated_at - _EPOCH) // _MICROSECOND, before + 1)
