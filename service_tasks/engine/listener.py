"""Receives announcements of the API and other workers, and wakes the duties that act on them."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence

from service_tasks.engine.canceller import Canceller
from service_tasks.engine.claimer import Claimer
from service_tasks.engine.duties import DatabaseDuty
from service_tasks.engine.ports import READY, SCHEDULED, SCHEDULES, OpenWakeUps, WakeUps, cancelled_lease
from servicekit.process.lifecycle import Duty
from servicekit.wire.errors import Unavailable

WAIT_SECONDS = 1.0
PROBE_SECONDS = 30.0


class ConnectionDuty(DatabaseDuty):
    """Keeps a listening connection open and replaces a broken one; a subclass acts on the announcements.

    Announcements may be lost (a broken connection, a restart), so nothing may depend on them.
    """

    def __init__(
        self,
        name: str,
        *,
        open_wake_ups: OpenWakeUps,
        on_death: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name, on_death=on_death)
        self._open = open_wake_ups
        self._monotonic = monotonic
        self._wake_ups: WakeUps | None = None
        self._probed_at = 0.0

    @abstractmethod
    def hear(self, announcements: Sequence[str]) -> None:
        """Act on announcements; called on this duty's thread, also with none after a timeout."""

    def opened(self) -> None:
        """Called whenever the connection is open again: announcements made meanwhile are lost."""
        return

    def work(self) -> float:
        if self._wake_ups is None:
            self._wake_ups = self._open()
            self._probed_at = self._monotonic()
            self.opened()
        try:
            self.hear(self._wake_ups.wait(WAIT_SECONDS))
            if self._monotonic() - self._probed_at > PROBE_SECONDS:
                self._wake_ups.probe()
                self._probed_at = self._monotonic()
        except Unavailable:
            self.close()
            raise
        return 0.0

    def stop(self, timeout: float | None = 5.0) -> None:
        wake_ups = self._wake_ups
        if wake_ups is not None:
            wake_ups.interrupt()
        super().stop(timeout)

    def close(self) -> None:
        """Call it once the duty has stopped."""
        wake_ups, self._wake_ups = self._wake_ups, None
        if wake_ups is not None:
            wake_ups.close()


class Listener(ConnectionDuty):
    """Every duty that it wakes also polls, and is woken once whenever the connection is open again."""

    def __init__(
        self,
        *,
        open_wake_ups: OpenWakeUps,
        claimer: Claimer,
        promoter: Duty,
        scheduler: Duty,
        canceller: Canceller,
        heartbeat: Duty,
        on_death: Callable[[], None],
    ) -> None:
        super().__init__("listener", open_wake_ups=open_wake_ups, on_death=on_death)
        self._claimer = claimer
        self._promoter = promoter
        self._scheduler = scheduler
        self._canceller = canceller
        self._heartbeat = heartbeat

    def opened(self) -> None:
        # The heartbeat too: only its comparison finds that a running task was purged.
        for duty in (self._claimer, self._promoter, self._scheduler, self._canceller, self._heartbeat):
            duty.wake()

    def hear(self, announcements: Sequence[str]) -> None:
        # Repeated announcements are as good as one.
        for announcement in dict.fromkeys(announcements):
            if announcement == READY:
                self._claimer.claim_at_once()
            elif announcement == SCHEDULED:
                self._promoter.wake()
            elif announcement == SCHEDULES:
                self._scheduler.wake()
            else:
                lease = cancelled_lease(announcement)
                if lease is not None:
                    self._canceller.cancel(lease)
