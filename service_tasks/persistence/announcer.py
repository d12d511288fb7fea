"""Tells workers that there is something to do, seldom enough that the telling costs nothing."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from datetime import datetime

from service_tasks.persistence.task_store import TaskStore
from servicekit.process.lifecycle import Duty
from servicekit.wire.errors import DeadlineExceeded, Unavailable

_IDLE_SECONDS = 60.0


class Announcer(Duty):
    """A commit with NOTIFY takes a lock over the whole server, so each process sends a word at most once per
    `interval_seconds`. Its thread starts with the first word. A lost one costs a worker's poll, no more."""

    def __init__(self, store: TaskStore, *, on_death: Callable[[], None], interval_seconds: float = 0.05) -> None:
        super().__init__("announcer", pause=self._next_pause, on_death=on_death)
        self._store = store
        self._interval = interval_seconds
        self._lock = threading.Lock()
        self._words: set[str] = set()
        # Never yet: a machine may have been started less than an interval ago.
        self._sent_at = -math.inf

    def announce(self, word: str) -> None:
        """Send the word soon; returns at once."""
        with self._lock:
            self._words.add(word)
            self.start()
        self.wake()

    def may_announce(self) -> bool:
        """Whether the caller may send one word itself, inside its own transaction; else it calls `announce` after it.

        A word that comes with the commit of a task reaches a worker a transaction earlier.
        """
        with self._lock:
            if self._words or self._remaining() > 0:
                return False
            self._sent_at = time.monotonic()
            return True

    def run_once(self, now: datetime) -> None:
        if not self._words or self._remaining() > 0:
            return
        with self._lock:
            words, self._words = self._words, set()
        self._sent_at = time.monotonic()
        for word in sorted(words):
            try:
                self._store.announce(word)
            except (Unavailable, DeadlineExceeded):
                # The workers' poll finds what we could not announce.
                return

    def _remaining(self) -> float:
        return self._sent_at + self._interval - time.monotonic()

    def _next_pause(self) -> float:
        return max(0.0, self._remaining()) if self._words else _IDLE_SECONDS
