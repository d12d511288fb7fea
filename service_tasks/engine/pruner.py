"""Removes tasks that ended long ago, and old records."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

from service_tasks.engine.duties import DatabaseDuty
from service_tasks.engine.metrics import WorkerMetrics
from service_tasks.engine.ports import PruneStore, Retention
from servicekit.observing.logs import get_logger
from servicekit.process.backoff import jittered

BATCH = 1000
#: seconds from the end of one pass over the tasks to the start of the next
ROUND_SECONDS = 300.0
#: how long records of a schedule's runs are kept, in seconds
KEEP_TICKS_SECONDS = 7 * 86_400.0
#: how long the counts of each minute are kept, in seconds; only the last few are used
KEEP_MINUTES_SECONDS = 86_400.0
#: Rejected messages are kept for an operator, but a producer that sends only bad ones must not fill the disk.
MOST_REJECTIONS = 100_000
_SHORTEST_REST_SECONDS = 0.01
_log = get_logger(__name__)


class Pruner(DatabaseDuty):
    """Runs in the leader: one short transaction, then a pause of the same length, so that pruning takes at most half of
    the database's time."""

    def __init__(
        self,
        *,
        store: PruneStore,
        retention: Retention,
        leads: Callable[[], bool],
        on_death: Callable[[], None],
        batch: int = BATCH,
        round_seconds: float = ROUND_SECONDS,
        most_rejections: int = MOST_REJECTIONS,
        monotonic: Callable[[], float] = time.monotonic,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        super().__init__("pruner", on_death=on_death)
        self._store = store
        self._retention = retention
        self._leads = leads
        self._batch = batch
        self._round_seconds = round_seconds
        self._most_rejections = most_rejections
        self._monotonic = monotonic
        self._metrics = metrics or WorkerMetrics()
        self._after: UUID | None = None
        self._removed = 0
        self._next_round_at: float | None = None

    def work(self) -> float:
        if not self._leads():
            # A worker that led meanwhile began from the start as well.
            self._after, self._removed = None, 0
            return jittered(self._round_seconds)
        began = self._monotonic()
        if self._next_round_at is not None and began < self._next_round_at:
            return self._next_round_at - began
        self._next_round_at = None
        records = self._prune_records()
        step = self._store.prune_tasks(self._retention, after=self._after, limit=self._batch)
        self._after = step.last
        self._removed += step.removed
        self._metrics.pruned_tasks += step.removed
        ended = self._monotonic()
        if step.seen == self._batch or records == self._batch:
            if step.seen < self._batch:
                self._after = None
            return max(ended - began, _SHORTEST_REST_SECONDS)
        if self._removed:
            _log.info("tasks_pruned", count=self._removed)
        self._after, self._removed = None, 0
        self._next_round_at = ended + jittered(self._round_seconds)
        return self._next_round_at - ended

    def _prune_records(self) -> int:
        """Delete one batch of each kind; return the size of the largest, which tells whether more may be left."""
        store, keep = self._store, self._retention.messages_seconds
        removed = [
            store.prune_ticks(keep_seconds=KEEP_TICKS_SECONDS, limit=self._batch),
            store.prune_rejections(most=self._most_rejections, limit=self._batch),
            store.prune_minutes(keep_seconds=KEEP_MINUTES_SECONDS, limit=self._batch),
        ]
        if keep is not None:
            removed.append(store.prune_messages(keep_seconds=keep, limit=self._batch))
        self._metrics.pruned_records += sum(removed)
        return max(removed)
