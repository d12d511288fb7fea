"""Keeps the worker's row alive and compares its leases in the database with its active tasks."""

from __future__ import annotations

import time
from collections.abc import Callable

from service_tasks.domain.task import HandedBack, Lease
from service_tasks.engine.active_tasks import ActiveTasks, StopReason
from service_tasks.engine.duties import LONGEST_PAUSE_SECONDS, DatabaseDuty
from service_tasks.engine.ports import WorkerInfo, WorkerStore
from service_tasks.engine.reporter import Reporter
from servicekit.observing.logs import get_logger
from servicekit.process.backoff import jittered

_log = get_logger(__name__)


class Heartbeat(DatabaseDuty):
    """Has its own thread and connection, so that neither a handler that blocks the event loop nor an exhausted
    connection pool makes the worker look dead.

    The worker's tasks are certainly its own for one lease from the sending of a beat that arrived. After that, for
    example when the process was stopped for a while, they may have been taken, even finished, elsewhere: the term has
    ended. The next beat that arrives begins a new term, which does not bring them back.
    """

    def __init__(
        self,
        *,
        store: WorkerStore,
        worker: WorkerInfo,
        active_tasks: ActiveTasks,
        reporter: Reporter,
        seconds: float,
        check_health: Callable[[], None],
        on_death: Callable[[], None],
        report_load: Callable[[], None] = lambda: None,
        on_lost_claim: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`report_load` is called after each beat and may raise what a store raises; `on_lost_claim` once per lost
        claim."""
        # Reconnect within a lease of the workers that reconnect first: their rescuer waits no longer than that.
        super().__init__("heartbeat", on_death=on_death, longest_pause=min(LONGEST_PAUSE_SECONDS, seconds))
        self._store = store
        self._worker = worker
        self._active_tasks = active_tasks
        self._reporter = reporter
        self._seconds = seconds
        self._check_health = check_health
        self._report_load = report_load
        self._on_lost_claim = on_lost_claim
        self._monotonic = monotonic
        self._beaten_at: float | None = None
        #: leases that are this worker's in the database but were unknown here at the last beat, with the number of
        #: claims that had ended before the first such beat
        self._unknown: dict[Lease, int] = {}
        self._terms = 0
        self._sure_until = 0.0

    def term(self) -> int | None:
        """The present term, for tasks claimed from now on; None between terms."""
        return self._terms if self._monotonic() < self._sure_until else None

    def holds(self, term: int, now: float) -> bool:
        """Whether tasks claimed in that term are certainly still this worker's; `now` is monotonic."""
        return term == self._terms and now < self._sure_until

    def work(self) -> float:
        asked_at = self._monotonic()
        self._store.beat(self._worker)
        self._beaten_at = asked_at
        if self._monotonic() > self._sure_until:
            # Before the time is set: no reader may see the new time with the old term.
            self._terms += 1
        self._sure_until = asked_at + self._worker.lease_seconds
        self.reconcile()
        self._report_load()
        self._check_health()
        return jittered(self._seconds, 0.1)

    def age(self) -> float | None:
        """Seconds since the last beat that arrived; None before the first."""
        return None if self._beaten_at is None else self._monotonic() - self._beaten_at

    def reconcile(self) -> None:
        """Stop handlers whose lease is gone; hand back tasks of claims whose answer was lost."""
        # These were claimed before the query, so its result has each that is still held.
        mine = self._active_tasks.snapshot()
        ended_before = self._active_tasks.claims_ended
        held = self._store.held_by(self._worker.id)
        for task in mine:
            if task.lease not in held and not task.settled:
                self._lose(task.lease)
        # A claim whose answer is still coming in looks like a lost one. At the next beat it is among the active tasks,
        # unless the machine is so busy that it is still in progress: then no claim has ended since.
        is_claiming, ended = self._active_tasks.is_claiming, self._active_tasks.claims_ended
        unknown = {
            lease: self._unknown.get(lease, ended_before) for lease in held if self._active_tasks.get(lease) is None
        }
        for lease in unknown.keys() & self._unknown.keys():
            if is_claiming and ended == unknown[lease]:
                continue
            # If it was written meanwhile, its lease refuses the hand-back.
            _log.warning("lost_claim_found", task_id=lease.key)
            self._on_lost_claim()
            self._reporter.report(HandedBack(lease))
        self._unknown = unknown

    def _lose(self, lease: Lease) -> None:
        task = self._active_tasks.get(lease)
        if task is not None and task.stop_reason is not StopReason.CANCELLED:
            _log.info("lease_lost", task_id=lease.key)
            task.stop(StopReason.LEASE_LOST)
