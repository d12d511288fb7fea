"""Writes outcomes and progress, in batches, and keeps them in memory while the database is away."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from itertools import islice

from service_tasks.domain.task import FailedForGood, Lease, Outcome, Progress, Succeeded, WillRetry
from service_tasks.engine.active_tasks import ActiveTasks
from service_tasks.engine.duties import DatabaseDuty
from service_tasks.engine.metrics import WorkerMetrics
from service_tasks.engine.ports import WorkerStore
from servicekit.observing.logs import get_logger
from servicekit.wire.errors import DatabaseLocked, DeadlineExceeded, Unavailable

LARGEST_BATCH = 1000
#: results with this many characters in all fill a statement, however few they are
LARGEST_TEXT = 8 * 1024 * 1024
#: The shortest pause between writes unless enough outcomes wait: a commit costs the same for one as for many. The first
#: write after a pause is immediate.
SHORTEST_PAUSE_SECONDS = 0.005
ENOUGH = 500
PROGRESS_SECONDS = 0.5
#: seconds between checks of tasks that another session keeps locked
LOCKED_SECONDS = 1.0
_IDLE_SECONDS = 60.0
_log = get_logger(__name__)


class Reporter(DatabaseDuty):
    """A task leaves the active tasks only once its outcome is written or refused, so a worker cut off from the database
    takes nothing new once its slots are full. An outcome whose row is locked does not hold up the others."""

    def __init__(
        self,
        *,
        store: WorkerStore,
        worker_name: str,
        active_tasks: ActiveTasks,
        on_written: Callable[[bool], None],
        on_death: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        """`on_written(retried)` is called after each batch: slots are free, and tasks may wait again."""
        super().__init__("reporter", on_death=on_death)
        self._store = store
        self._worker_name = worker_name
        self._active_tasks = active_tasks
        self._on_written = on_written
        self._monotonic = monotonic
        self._metrics = metrics or WorkerMetrics()
        self._lock = threading.Lock()
        self._outcomes: deque[Outcome] = deque()
        self._progress: dict[Lease, Progress] = {}
        self._progress_written_at = 0.0
        self._written_at = 0.0
        #: leases of outcomes that may have been written although the answer was lost
        self._unsure: set[Lease] = set()
        #: leases of tasks that another session keeps locked, and the outcomes of some of them
        self._locked: set[Lease] = set()
        self._aside: list[Outcome] = []
        self._look_again_at = 0.0

    def report(self, *outcomes: Outcome) -> None:
        """Take outcomes; call it from any thread."""
        self._outcomes.extend(outcomes)
        self.wake()

    def note_progress(self, progress: Progress) -> None:
        """Take the latest progress of one task, replacing earlier progress; call it from any thread."""
        with self._lock:
            first = not self._progress
            self._progress[progress.lease] = progress
        if first:
            self.wake()

    def waiting(self) -> int:
        """The number of outcomes about to be written."""
        return len(self._outcomes)

    def unwritten(self) -> int:
        """The number of these, and of those that cannot be written now."""
        return len(self._outcomes) + len(self._aside)

    def work(self) -> float:
        if not self._locked:
            return self._write()
        if self._monotonic() >= self._look_again_at:
            self._look_at_locked()
        return min(self._write(), LOCKED_SECONDS)

    def _write(self) -> float:
        while self._outcomes:
            if len(self._outcomes) < ENOUGH and not self.stopping:
                left = self._written_at + SHORTEST_PAUSE_SECONDS - self._monotonic()
                if left > 0:
                    return left
            self._write_batch()
        return self._write_progress()

    def _write_batch(self) -> None:
        if self._locked:
            self._put_aside()
        # Only this thread removes from the left, so the batch stays there until the database has answered.
        batch = self._batch()
        if not batch:
            return
        leases = [outcome.lease for outcome in batch]
        if self._progress:
            with self._lock:
                last_progress = [report for lease in leases if (report := self._progress.pop(lease, None))]
            if last_progress:
                # First, while the tasks still run: after the outcome the lease would refuse it.
                try:
                    self._store.write_progress(last_progress)
                except DatabaseLocked:
                    if not self._find_locked(leases):
                        raise
                    return
        asked_at = self._monotonic()
        try:
            accepted = self._store.write(batch, self._worker_name)
        except (Unavailable, DeadlineExceeded) as exc:
            locked = isinstance(exc, DatabaseLocked) and self._find_locked(leases)
            # It may have been written and only the answer lost; it is then refused next time.
            self._unsure.update(lease for lease in leases if lease not in self._locked)
            if not locked:
                raise
            return
        self._written_at = self._monotonic()
        for _ in batch:
            self._outcomes.popleft()
        tasks = self._active_tasks.remove(leases)
        # An unsure outcome that is refused now was written the time before.
        known = accepted | self._unsure if self._unsure else accepted
        self._metrics.written(batch, known, tasks, self._written_at - asked_at)
        self._tell(batch, accepted)
        self._on_written(any(isinstance(outcome, WillRetry) for outcome in batch))

    def _find_locked(self, leases: Collection[Lease]) -> bool:
        """Note which of these are locked, so that the others are written without them; return whether any are."""
        locked = self._store.locked(leases)
        for lease in locked:
            _log.warning("task_locked", task_id=lease.key)
        self._locked |= locked
        self._look_again_at = self._monotonic() + LOCKED_SECONDS
        return bool(locked)

    def _put_aside(self) -> None:
        for _ in range(len(self._outcomes)):
            # In both places for a moment, but never in neither: a caller may wait until there are none.
            outcome = self._outcomes[0]
            (self._aside if outcome.lease in self._locked else self._outcomes).append(outcome)
            self._outcomes.popleft()

    def _look_at_locked(self) -> None:
        self._locked = self._store.locked(self._locked)
        self._look_again_at = self._monotonic() + LOCKED_SECONDS
        self._outcomes.extend([outcome for outcome in self._aside if outcome.lease not in self._locked])
        self._aside = [outcome for outcome in self._aside if outcome.lease in self._locked]

    def _batch(self) -> list[Outcome]:
        # Copied in one step: a deque that grows during iteration raises an error.
        batch = list(islice(self._outcomes.copy(), LARGEST_BATCH))
        room = LARGEST_TEXT
        for index, outcome in enumerate(batch):
            if isinstance(outcome, Succeeded):
                room -= len(outcome.result)
                if room < 0 and index:
                    return batch[:index]
        return batch

    def _tell(self, batch: list[Outcome], accepted: set[Lease]) -> None:
        completed = 0
        for outcome in batch:
            if outcome.lease not in accepted:
                if outcome.lease in self._unsure:
                    continue
                _log.info("late_result_refused", task_id=str(outcome.lease.task_id), kind=type(outcome).__name__)
            elif isinstance(outcome, Succeeded):
                completed += 1
            elif isinstance(outcome, FailedForGood | WillRetry):
                _log.info(
                    "task_failed" if isinstance(outcome, FailedForGood) else "task_will_retry",
                    task_id=str(outcome.lease.task_id),
                    error_type=outcome.error.type,
                )
        if completed == 1 and len(batch) == 1:
            _log.info("task_completed", task_id=str(batch[0].lease.task_id))
        elif completed:
            _log.info("tasks_completed", count=completed)
        if self._unsure:
            self._unsure.difference_update(outcome.lease for outcome in batch)

    def _write_progress(self) -> float:
        if not self._progress:
            return _IDLE_SECONDS
        left = self._progress_written_at + PROGRESS_SECONDS - self._monotonic()
        if left > 0:
            return left
        with self._lock:
            reports, self._progress = self._progress, {}
        for lease in self._locked:
            reports.pop(lease, None)
        try:
            if reports:
                self._store.write_progress(list(reports.values()))
        except DatabaseLocked:
            if not self._find_locked(reports):
                raise
        finally:
            # Progress that could not be written is dropped: newer progress or the end follows.
            self._progress_written_at = self._monotonic()
        return _IDLE_SECONDS if not self._progress else PROGRESS_SECONDS
