"""What a handler gets besides its payload."""

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
    """Raise it for a task that can never succeed: it fails at once, whatever attempts are left."""


class RetryAfter(Exception):
    """Raise it to say when to try again: in `seconds`, instead of the backoff.

    The attempt counts; the last one fails the task. Waits of over a day are cut to a day. Raises `ValueError`
    for what is not a number of seconds.
    """

    def __init__(self, seconds: float, reason: str | None = None) -> None:
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"RetryAfter needs a number of seconds from 0 on, not {seconds!r}")
        super().__init__(reason or f"asked to be tried again after {seconds:g} seconds")
        self.seconds = float(seconds)


class TaskStopped(Exception):
    """The task was cancelled, timed out or is being handed back: tidy up and leave the handler."""


_making_events = threading.Lock()


class TaskContext:
    """May be used from any thread; every method returns at once (except `sleep`)."""

    __slots__ = ("_lease", "_report", "_stop_event", "_stopped", "attempt", "max_attempts")

    def __init__(self, claimed: ClaimedTask, report: Callable[[Progress], None]) -> None:
        self._lease = claimed.lease
        self._report = report
        self._stopped = False
        #: made by the first `sleep`: ten thousand of them would be most of a worker's memory
        self._stop_event: threading.Event | None = None
        #: the number of this attempt, from 1
        self.attempt = claimed.attempt
        self.max_attempts = claimed.max_attempts

    @property
    def task_id(self) -> UUID:
        return self._lease.task_id

    def progress(self, percent: float, message: str | None = None) -> None:
        """Say how far the task is (0 to 100). Kept in memory and written a few times a second at most, so call it as
        often as you like."""
        text = None if message is None else plain_text(str(message), MAX_PROGRESS_MESSAGE_CHARACTERS)
        self._report(Progress(self._lease, clamp_percent(percent), text))

    @property
    def cancelled(self) -> bool:
        """Whether the handler should stop. Async handlers are also cancelled at their next `await`; plain functions
        have to look."""
        return self._stopped

    def check_cancelled(self) -> None:
        """Raise `TaskStopped` once the handler should stop."""
        if self._stopped:
            raise TaskStopped

    def sleep(self, seconds: float) -> None:
        """Wait, in a plain function; raise `TaskStopped` as soon as the handler should stop."""
        with _making_events:
            event = self._stop_event = self._stop_event or threading.Event()
        # Read after the event is made, and set before the event is looked for: one of the two threads sees the other.
        if self._stopped or event.wait(seconds):
            raise TaskStopped

    def _request_stop(self) -> None:
        self._stopped = True
        if self._stop_event is not None:
            self._stop_event.set()
