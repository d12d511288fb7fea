"""Keeps the worker's row alive and compares what the database believes with what the worker knows."""

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
    """Has a thread and a connection of its own, so that neither a handler that blocks the event loop nor a full
    connection pool makes the worker look dead.

    What this worker holds is its own for one lease from the sending of a beat that arrived. After that, as in a process
    that was stopped for a while, everything may have been taken and even done elsewhere: the term has ended. The next
    beat that arrives begins another term, and brings nothing back.
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
        """`report_load` is called after each beat and may raise what a store raises; `on_lost_claim` is called for each
        lost claim."""
        # Reconnect before the lease ends for workers that reconnected earlier: their rescuers wait no longer than a
        # lease.
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
        #: leases that the database said we hold at the last beat and that we did not know, with the number of claims
        #: that had ended just before we first asked
        self._unknown: dict[Lease, int] = {}
        self._terms = 0
        self._sure_until = 0.0

    def term(self) -> int | None:
        """The present term, for what is claimed from now on; None between two terms."""
        return self._terms if self._monotonic() < self._sure_until else None

    def holds(self, term: int, now: float) -> bool:
        """Whether what was claimed in that term is certainly still ours; `now` is of the monotonic clock."""
        return term == self._terms and now < self._sure_until

    def work(self) -> float:
        asked_at = self._monotonic()
        self._store.beat(self._worker)
        self._beaten_at = asked_at
        if self._monotonic() > self._sure_until:
            # Before the time is set: whoever sees the new time must not see the old term with it.
            self._terms += 1
        self._sure_until = asked_at + self._worker.lease_seconds
        self.reconcile()
        self._report_load()
        self._check_health()
        return jittered(self._seconds, 0.1)

    def age(self) -> float | None:
        """Seconds since the last beat that the database took; None before the first."""
        return None if self._beaten_at is None else self._monotonic() - self._beaten_at

    def reconcile(self) -> None:
        """Stop handlers whose lease is gone; hand back tasks that a claim took but whose answer was lost."""
        # Our active tasks were claimed before we ask, so the answer names each that we still hold.
        mine = self._active_tasks.snapshot()
        ended_before = self._active_tasks.claims_ended
        held = self._store.held_by(self._worker.id)
        for task in mine:
            if task.lease not in held and not task.settled:
                self._lose(task.lease)
        # A claim whose answer is just coming in looks like a lost one; at the next beat it is among the active tasks,
        # unless the machine is so busy that it is still under way: then no claim has ended since.
        is_claiming, ended = self._active_tasks.is_claiming, self._active_tasks.claims_ended
        unknown = {
            lease: self._unknown.get(lease, ended_before) for lease in held if self._active_tasks.get(lease) is None
        }
        for lease in unknown.keys() & self._unknown.keys():
            if is_claiming and ended == unknown[lease]:
                continue
            # It may have been written by now: then its lease refuses the hand-back.
            _log.warning("lost_claim_found", task_id=lease.key)
            self._on_lost_claim()
            self._reporter.report(HandedBack(lease))
        self._unknown = unknown

    def _lose(self, lease: Lease) -> None:
        task = self._active_tasks.get(lease)
        if task is not None and task.stop_reason is not StopReason.CANCELLED:
            _log.info("lease_lost", task_id=lease.key)
            task.stop(StopReason.LEASE_LOST)
