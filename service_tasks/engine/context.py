"""The context that a handler gets with its payload, and the exceptions it may raise."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from uuid import UUID

from service_tasks.domain.task import (
    MAX_PROGRESS_MESSAGE_CHARACTERS,
    ClaimedTask,
    Progress,
    clamp_percent,
    plain_text,
)


class GiveUp(Exception):
    """Raise it for a task that can never succeed: the task fails at once, whatever attempts are left."""


class RetryAfter(Exception):
    """Raise it to say when to try again: in `seconds`, instead of the backoff.

    The attempt counts; the last one fails the task. More than a day becomes a day. Raises `ValueError` for anything but
    a number of seconds from 0 on.
    """

    def __init__(self, seconds: float, reason: str | None = None) -> None:
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"RetryAfter needs a number of seconds from 0 on, not {seconds!r}")
        super().__init__(reason or f"asked to be tried again after {seconds:g} seconds")
        self.seconds = float(seconds)


class TaskStopped(Exception):
    """The task was cancelled, timed out or is being handed back: clean up and leave the handler."""


_making_events = threading.Lock()


class TaskContext:
    """May be used from any thread; every method returns at once (except `sleep`)."""

    __slots__ = ("_lease", "_report", "_stop_event", "_stopped", "attempt", "max_attempts")

    def __init__(self, claimed: ClaimedTask, report: Callable[[Progress], None]) -> None:
        self._lease = claimed.lease
        self._report = report
        self._stopped = False
        #: made by the first `sleep`: ten thousand events would take most of a worker's memory
        self._stop_event: threading.Event | None = None
        #: the number of this attempt, from 1
        self.attempt = claimed.attempt
        self.max_attempts = claimed.max_attempts

    @property
    def task_id(self) -> UUID:
        return self._lease.task_id

    def progress(self, percent: float, message: str | None = None) -> None:
        """Report how far the task is (0 to 100). Kept in memory and written at most a few times a second, so call it as
        often as you like."""
        text = None if message is None else plain_text(str(message), MAX_PROGRESS_MESSAGE_CHARACTERS)
        self._report(Progress(self._lease, clamp_percent(percent), text))

    @property
    def cancelled(self) -> bool:
        """Whether the handler should stop. Async handlers are also cancelled at their next `await`; plain functions
        have to check."""
        return self._stopped

    def check_cancelled(self) -> None:
        """Raise `TaskStopped` once the handler should stop."""
        if self._stopped:
            raise TaskStopped

    def sleep(self, seconds: float) -> None:
        """Wait, in a plain function; raise `TaskStopped` as soon as the handler should stop."""
        with _making_events:
            event = self._stop_event = self._stop_event or threading.Event()
        # Here `_stopped` is read after the event is made, there it is set before the event is read: one thread sees the
        # other.
        if self._stopped or event.wait(seconds):
            raise TaskStopped

    def _request_stop(self) -> None:
        self._stopped = True
        if self._stop_event is not None:
            self._stop_event.set()
