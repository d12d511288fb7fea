"""Announces new work to the workers, at a limited rate."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from datetime import datetime

from service_tasks.engine.ports import ANNOUNCE_SECONDS
from service_tasks.persistence.task_store import TaskStore
from servicekit.process.lifecycle import Duty
from servicekit.wire.errors import DeadlineExceeded, Unavailable

_IDLE_SECONDS = 60.0


class Announcer(Duty):
    """A commit with NOTIFY takes a server-wide lock, so each process announces at most once per
    `interval_seconds`. The thread starts with the first announcement. A lost one costs no more than a worker's poll."""

    def __init__(
        self, store: TaskStore, *, on_death: Callable[[], None], interval_seconds: float = ANNOUNCE_SECONDS
    ) -> None:
        super().__init__("announcer", pause=self._next_pause, on_death=on_death)
        self._store = store
        self._interval = interval_seconds
        self._lock = threading.Lock()
        self._waiting: set[str] = set()
        # Not 0: the machine's clock may have started less than an interval ago.
        self._sent_at = -math.inf

    def announce(self, announcement: str) -> None:
        """Send it soon; returns at once."""
        with self._lock:
            if announcement in self._waiting:
                # The thread is about to send it; to wake it for each of a thousand tasks would cost them a turn.
                return
            self._waiting.add(announcement)
            self.start()
        self.wake()

    def may_announce(self) -> bool:
        """Whether the caller may announce in its own transaction; else it calls `announce` afterwards.

        An announcement in the task's own commit reaches workers one transaction earlier.
        """
        with self._lock:
            if self._waiting or self._remaining() > 0:
                return False
            self._sent_at = time.monotonic()
            return True

    def run_once(self, now: datetime) -> None:
        if not self._waiting or self._remaining() > 0:
            return
        with self._lock:
            waiting, self._waiting = self._waiting, set()
        self._sent_at = time.monotonic()
        for announcement in sorted(waiting):
            try:
                self._store.announce(announcement)
            except (Unavailable, DeadlineExceeded):
                # The workers' poll finds it without an announcement.
                return

    def _remaining(self) -> float:
        return self._sent_at + self._interval - time.monotonic()

    def _next_pause(self) -> float:
        return max(0.0, self._remaining()) if self._waiting else _IDLE_SECONDS
