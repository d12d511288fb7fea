"""Hears what is announced to workers and looks at the watched tasks early where that may show in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from service_tasks.engine.listener import LineDuty
from service_tasks.engine.ports import OpenWakeUps, cancelled_lease


class EventListener(LineDuty):
    """A cancel, and the purge of a running task, are announced; everything else is found by looking. A lost
    announcement costs one interval."""

    def __init__(self, open_wake_ups: OpenWakeUps, *, hurry: Callable[[], None], on_death: Callable[[], None]) -> None:
        """`hurry` is called on this duty's thread."""
        super().__init__("event_listener", open_wake_ups=open_wake_ups, on_death=on_death)
        self._hurry = hurry

    def hear(self, announcements: Sequence[str]) -> None:
        if any(cancelled_lease(word) for word in announcements):
            self._hurry()
