"""Places that threads take, such as those of a connection pool: first come, first served."""

from __future__ import annotations

import threading
from collections import deque


class FairPlaces:
    """Thread-safe. A place that is given back goes to whoever has waited longest, never to a thread that comes later:
    queue.SimpleQueue lets that one overtake, and those who wait under load wait until their time is up."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._lock = threading.Lock()
        #: What releases each waiting thread.
        self._bells: deque[threading.Lock] = deque()

    @property
    def waiting(self) -> int:
        return len(self._bells)

    def take(self, seconds: float) -> bool:
        """Take a place, waiting up to `seconds`; returns whether there was one."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            bell = threading.Lock()
            bell.acquire()
            self._bells.append(bell)
        given = False
        try:
            given = bell.acquire(timeout=max(seconds, 0.0))
        finally:
            if not given:
                with self._lock:
                    given = bell not in self._bells
                    if not given:
                        self._bells.remove(bell)
        return given

    def give_back(self) -> None:
        with self._lock:
            if self._bells:
                self._bells.popleft().release()
            else:
                self._free += 1
