"""Passes a cancel on to the handler: at once by announcement, within a second by polling."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from service_tasks.domain.task import Lease, StoppedAfterCancel
from service_tasks.engine.active_tasks import ActiveTasks, StopReason
from service_tasks.engine.duties import DatabaseDuty
from service_tasks.engine.ports import WorkerStore
from service_tasks.engine.reporter import Reporter
from servicekit.process.backoff import jittered

ASK_SECONDS = 0.7


class Canceller(DatabaseDuty):
    def __init__(
        self,
        *,
        store: WorkerStore,
        worker_id: UUID,
        active_tasks: ActiveTasks,
        reporter: Reporter,
        on_death: Callable[[], None],
    ) -> None:
        super().__init__("canceller", on_death=on_death)
        self._store = store
        self._worker_id = worker_id
        self._active_tasks = active_tasks
        self._reporter = reporter
        self._was_busy = False
        self._added = 0
        #: cancelled leases that this worker did not know at the last poll
        self._unknown: set[Lease] = set()

    def work(self) -> float:
        # A task that came and went between polls may have been cancelled too, and its result refused.
        added = self._active_tasks.added
        busy = len(self._active_tasks) > 0 or added != self._added
        self._added = added
        # Poll once more after the last task: it may have been stopped for another reason than its cancel.
        if busy or self._was_busy:
            unknown = {lease for lease in self._store.cancelled_under(self._worker_id) if not self.cancel(lease)}
            # No handler here runs it, so its row may forget this worker, unless its claim is still coming in: the next
            # poll shows that.
            for lease in unknown & self._unknown:
                self._reporter.report(StoppedAfterCancel(lease))
            busy = busy or bool(unknown - self._unknown)
            self._unknown = unknown
        self._was_busy = busy
        return jittered(ASK_SECONDS)

    def cancel(self, lease: Lease) -> bool:
        """Stop the handler of this lease; return False if there is none."""
        task = self._active_tasks.get(lease)
        if task is None:
            return False
        if task.stop_reason is not StopReason.CANCELLED:
            task.stop(StopReason.CANCELLED)
        return True
