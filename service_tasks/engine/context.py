"""What a handler is given beside its payload."""

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
    """Raised by a handler whose task can never succeed: it fails at once, whatever attempts are left."""


class RetryAfter(Exception):
    """Raised by a handler that knows when to try again: in `seconds`, which takes the place of the backoff.

    The attempt counts; the last one fails the task. Waits of over a day are cut to a day. Raises `ValueError`
    for what is not a number of seconds.
    """

    def __init__(self, seconds: float, reason: str | None = None) -> None:
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"RetryAfter needs a number of seconds from 0 on, not {seconds!r}")
        super().__init__(reason or f"asked to be tried again after {seconds:g} seconds")
        self.seconds = float(seconds)


class TaskStopped(Exception):
    """The task was cancelled, timed out, or is being handed back: leave the handler, tidying up."""


_making_events = threading.Lock()


class TaskContext:
    """May be used from any thread; every method returns at once (except `sleep`)."""

    __slots__ = ("_lease", "_report", "_stop_event", "_stopped", "attempt", "max_attempts")

    def __init__(self, claimed: ClaimedTask, report: Callable[[Progress], None]) -> None:
        self._lease = claimed.lease
        self._report = report
        self._stopped = False
        #: made when somebody sleeps on it: ten thousand of them would be most of a worker's memory
        self._stop_event: threading.Event | None = None
        #: from 1; grows with every try of this task
        self.attempt = claimed.attempt
        self.max_attempts = claimed.max_attempts

    @property
    def task_id(self) -> UUID:
        return self._lease.task_id

    def progress(self, percent: float, message: str | None = None) -> None:
        """Tell people how far the task is (0 to 100). Kept in memory and written a few times a second at
        most, so it may be called as often as one likes."""
        text = None if message is None else plain_text(str(message), MAX_PROGRESS_MESSAGE_CHARACTERS)
        self._report(Progress(self._lease, clamp_percent(percent), text))

    @property
    def cancelled(self) -> bool:
        """True once the handler should stop. Async handlers are stopped at their next `await` as well;
        plain functions have to look."""
        return self._stopped

    def check_cancelled(self) -> None:
        """Raise `TaskStopped` once the handler should stop."""
        if self._stopped:
            raise TaskStopped

    def sleep(self, seconds: float) -> None:
        """For plain functions: wait, but raise `TaskStopped` as soon as the handler should stop."""
        with _making_events:
            event = self._stop_event = self._stop_event or threading.Event()
        # Looked at after the event stands, and set before it is looked for: one of the two sides sees the other.
        if self._stopped or event.wait(seconds):
            raise TaskStopped

    def _request_stop(self) -> None:
        self._stopped = True
        if self._stop_event is not None:
            self._stop_event.set()
