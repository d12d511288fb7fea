"""Watches the event loop from another thread: a blocked loop cannot notice that it is blocked."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from servicekit.observing.logs import get_logger
from servicekit.process.lifecycle import Duty

LOOK_SECONDS = 0.5
#: the lag from which the event loop counts as blocked, in seconds
LATE_SECONDS = 2.0
_log = get_logger(__name__)


class LoopWatch(Duty):
    """The lag of an event loop: how long it has neither answered nor begun a handler.

    Handlers that never wait run one after another in one turn of the loop, which is then busy, not blocked.
    """

    def __init__(
        self,
        *,
        ask: Callable[[Callable[[], None]], object],
        begun_at: Callable[[], float],
        on_late: Callable[[float, bool], None],
        on_death: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask` has the loop call a function as soon as it can; `begun_at` gives the time when the last handler began;
        `on_late` gets the lag at every check that finds the loop late, and whether it is the first such check."""
        super().__init__("loop watch", pause=lambda: LOOK_SECONDS, on_death=on_death)
        self._ask = ask
        self._begun_at = begun_at
        self._on_late = on_late
        self._monotonic = monotonic
        self._asked_at: float | None = None
        self._was_late = False

    def run_once(self, now: datetime) -> None:
        if self._asked_at is None:
            self._asked_at = self._monotonic()
            self._ask(self._answer)
        lag = self.lag()
        if lag >= LATE_SECONDS:
            first, self._was_late = not self._was_late, True
            self._on_late(lag, first)
        elif self._was_late:
            self._was_late = False
            _log.info("event_loop_back")

    def lag(self) -> float:
        """In seconds; call it from any thread."""
        asked_at = self._asked_at
        return 0.0 if asked_at is None else max(0.0, self._monotonic() - max(asked_at, self._begun_at()))

    def is_late(self) -> bool:
        """Whether it should get no more tasks; call it from any thread."""
        return self.lag() >= LATE_SECONDS

    def _answer(self) -> None:
        self._asked_at = None
