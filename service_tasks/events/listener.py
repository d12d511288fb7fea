"""Hears what is announced to workers and looks at the watched tasks early where that may show in them."""

from __future__ import annotations

import time
from collections.abc import Callable

from service_tasks.engine.duties import DatabaseDuty
from service_tasks.engine.ports import OpenWakeUps, WakeUps, cancelled_lease
from servicekit.errors import Unavailable

WAIT_SECONDS = 1.0
PROBE_SECONDS = 30.0


class EventListener(DatabaseDuty):
    """A cancel, and the purge of a running task, are announced; everything else is found by looking. A lost
    announcement costs one interval."""

    def __init__(self, open_wake_ups: OpenWakeUps, *, hurry: Callable[[], None], on_death: Callable[[], None]) -> None:
        """`hurry` is called on this duty's thread."""
        super().__init__("event_listener", on_death=on_death)
        self._open = open_wake_ups
        self._hurry = hurry
        self._line: WakeUps | None = None
        self._probed_at = 0.0

    def work(self) -> float:
        if self._line is None:
            self._line = self._open()
            self._probed_at = time.monotonic()
        try:
            if any(cancelled_lease(word) for word in self._line.wait(WAIT_SECONDS)):
                self._hurry()
            if time.monotonic() - self._probed_at > PROBE_SECONDS:
                self._line.probe()
                self._probed_at = time.monotonic()
        except Unavailable:
            self.close()
            raise
        return 0.0

    def stop(self, timeout: float | None = 5.0) -> None:
        line = self._line
        if line is not None:
            line.interrupt()
        super().stop(timeout)

    def close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()
