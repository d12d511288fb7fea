"""Elects one worker at a time to do the maintenance for all."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

from service_tasks.engine.duties import DatabaseDuty
from service_tasks.engine.ports import LeaderStore
from servicekit.observing.logs import get_logger
from servicekit.process.backoff import jittered
from servicekit.wire.errors import DeadlineExceeded, Unavailable

#: a leader that is silent for this many seconds is replaced
LEASE_SECONDS = 3.0
_log = get_logger(__name__)


class Leadership(DatabaseDuty):
    """Renews or seeks the leadership: a row that expires by the database's clock. A session lock would stay with a
    process that was stopped.

    Leadership saves work and guards nothing: a leader's work must be harmless when two do it, because a process that
    was stopped resumes where it was.
    """

    def __init__(
        self,
        *,
        store: LeaderStore,
        worker_id: UUID,
        on_elected: Callable[[], None],
        on_death: Callable[[], None],
        lease_seconds: float = LEASE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_elected` wakes the duties; it must not block."""
        super().__init__("leader", on_death=on_death, longest_pause=lease_seconds / 3)
        self._store = store
        self._worker_id = worker_id
        self._on_elected = on_elected
        self._lease_seconds = lease_seconds
        self._monotonic = monotonic
        self._leads_until = 0.0

    def leads(self) -> bool:
        """The local clock was read before the query, so the term ends here no later than in the database."""
        return self._monotonic() < self._leads_until

    def work(self) -> float:
        led = self.leads()
        asked_at = self._monotonic()
        term = self._store.lead(self._worker_id, self._lease_seconds)
        self._leads_until = asked_at + self._lease_seconds if term.leads else 0.0
        if term.leads and not led:
            _log.info("leader_elected", worker_id=str(self._worker_id))
            self._on_elected()
        pause = jittered(self._lease_seconds / 3)
        # Ask again as the other's term ends.
        return pause if term.leads else min(pause, term.ends_in_seconds + jittered(self._lease_seconds / 20))

    def stop(self, timeout: float | None = 5.0) -> None:
        """Stop, and let another worker lead at once."""
        super().stop(timeout)
        if self.leads():
            self._leads_until = 0.0
            try:
                self._store.resign(self._worker_id)
            except (Unavailable, DeadlineExceeded):
                _log.info("leader_left", worker_id=str(self._worker_id))
