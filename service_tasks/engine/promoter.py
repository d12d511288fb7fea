"""Makes tasks ready when their time has come."""

from __future__ import annotations

from collections.abc import Callable

from service_tasks.engine.duties import DatabaseDuty
from service_tasks.engine.metrics import WorkerMetrics
from service_tasks.engine.ports import WorkerStore
from servicekit.process.backoff import jittered

LARGEST_BATCH = 1000
_SHORTEST_SECONDS = 0.005


class Promoter(DatabaseDuty):
    """Runs in the leader; SKIP LOCKED keeps two leaders from blocking each other."""

    def __init__(
        self,
        *,
        store: WorkerStore,
        leads: Callable[[], bool],
        poll_seconds: float,
        on_promoted: Callable[[], None],
        on_death: Callable[[], None],
        metrics: WorkerMetrics | None = None,
    ) -> None:
        super().__init__("promoter", on_death=on_death)
        self._store = store
        self._leads = leads
        self._poll_seconds = poll_seconds
        self._on_promoted = on_promoted
        self._metrics = metrics or WorkerMetrics()

    def work(self) -> float:
        if not self._leads():
            # An election wakes this duty.
            return jittered(self._poll_seconds)
        while True:
            promotion = self._store.promote(LARGEST_BATCH)
            self._metrics.promoted += promotion.promoted
            if promotion.promoted:
                self._on_promoted()
            if promotion.promoted < LARGEST_BATCH or self.stopping:
                break
        pause = jittered(self._poll_seconds)
        if promotion.next_in_seconds is not None:
            pause = min(pause, max(promotion.next_in_seconds, _SHORTEST_SECONDS))
        return pause
