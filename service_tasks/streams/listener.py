"""Receives the announcements to workers, and polls early when one may have changed a watched task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from service_tasks.engine.listener import ConnectionDuty
from service_tasks.engine.ports import OpenWakeUps, cancelled_lease


class EventListener(ConnectionDuty):
    """Cancels and purges of running tasks are announced; everything else is found by polling. A lost announcement costs
    one interval."""

    def __init__(
        self, open_wake_ups: OpenWakeUps, *, look_now: Callable[[], None], on_death: Callable[[], None]
    ) -> None:
        """`look_now` is called on this duty's thread."""
        super().__init__("event_listener", open_wake_ups=open_wake_ups, on_death=on_death)
        self._look_now = look_now

    def hear(self, announcements: Sequence[str]) -> None:
        if any(cancelled_lease(one) for one in announcements):
            self._look_now()
