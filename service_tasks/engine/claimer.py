"""Claims ready tasks for the free slots of this worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from uuid import UUID

from service_tasks.domain.task import ClaimedTask, HandedBack
from service_tasks.engine.active_tasks import ActiveTask, ActiveTasks
from service_tasks.engine.context import TaskContext
from service_tasks.engine.duties import DatabaseDuty
from service_tasks.engine.metrics import WorkerMetrics
from service_tasks.engine.ports import Offer, WorkerStore
from service_tasks.engine.registry import Registry, TaskType
from service_tasks.engine.reporter import Reporter
from service_tasks.engine.runner import ThreadSlots
from servicekit.observing.logs import get_logger
from servicekit.process.backoff import jittered
from servicekit.wire.errors import DeadlineExceeded, Unavailable
from servicekit.wire.json_reader import weight as weight_of

LARGEST_BATCH = 1000
#: how many tasks may wait for the event loop: one batch in progress, and the next one
MOST_UNSTARTED = 2 * LARGEST_BATCH
#: memory, in bytes, that the payloads of held tasks may take, as text and as values
LARGEST_WEIGHT = 192 * 1024 * 1024
#: payloads of fewer bytes are not weighed
_LIGHT = 1024
#: seconds between checks whether the heartbeat has got through
_TERM_SECONDS = 0.1
#: while more slots are about to become free, a claim pays only if at least one slot in this many is free
_SHARE = 4
_log = get_logger(__name__)


class Claimer(DatabaseDuty):
    """Woken by announcements and freed slots, with a jittered poll as a fallback."""

    def __init__(
        self,
        *,
        store: WorkerStore,
        worker_id: UUID,
        registry: Registry,
        active_tasks: ActiveTasks,
        threads: ThreadSlots,
        reporter: Reporter,
        term: Callable[[], int | None],
        unstarted: Callable[[], int],
        hand_over: Callable[[list[ActiveTask]], None],
        poll_seconds: float,
        on_death: Callable[[], None],
        metrics: WorkerMetrics | None = None,
    ) -> None:
        """`hand_over` starts handlers without blocking; `unstarted` counts those not started yet. `term` is the
        heartbeat's."""
        super().__init__("claimer", on_death=on_death)
        self._store = store
        self._worker_id = worker_id
        self._registry = registry
        self._active_tasks = active_tasks
        self._threads = threads
        self._reporter = reporter
        self._term = term
        self._unstarted = unstarted
        self._hand_over = hand_over
        self._metrics = metrics or WorkerMetrics()
        self._wants_slots = False
        #: the mean memory of a task in the last claim
        self._usual_weight = 0.0
        self._poll_seconds = poll_seconds
        #: slots of async handlers, and of plain functions
        self._offers = (
            [_offer(item) for item in registry if item.is_async],
            [_offer(item) for item in registry if not item.is_async],
        )
        #: held by the thread that claims
        self._turn = threading.Lock()
        self._has_limits = any(offer.is_limited for kind in self._offers for offer in kind)

    def slot_freed(self) -> None:
        """Claim again, if the last claim left tasks for want of slots or because of a limit."""
        if self._wants_slots or self._has_limits or self._store.limits_apply():
            self.wake()

    def claim_at_once(self) -> None:
        """Claim on the caller's thread, which saves an idle worker a thread switch; the duty's own does the rest."""
        term = self._term()
        if term is not None and len(self._active_tasks) == 0 and self._turn.acquire(blocking=False):
            try:
                kinds = [index for index, kind in enumerate(self._offers) if kind]
                if self.stopping or all([self._claim_some(index, term) for index in kinds]):
                    return
            except (Unavailable, DeadlineExceeded):
                # The duty's own thread will fail in the same way, and waits as it should.
                pass
            finally:
                self._turn.release()
        self.wake()

    def work(self) -> float:
        waiting = {index for index, kind in enumerate(self._offers) if kind}
        with self._turn:
            while waiting and not self.stopping:
                for index in sorted(waiting):
                    # Set before the slots are counted, so that a slot freed later wakes this thread.
                    self._wants_slots = True
                    if not self._limit(index):
                        return jittered(self._poll_seconds)
                    term = self._term()
                    if term is None:
                        # The database takes this worker for dead: what it claims now could be taken away at once.
                        return jittered(_TERM_SECONDS)
                    if self._claim_some(index, term):
                        waiting.discard(index)
            self._wants_slots = False
        return jittered(self._poll_seconds)

    def stop(self, timeout: float | None = 5.0) -> None:
        super().stop(timeout)
        # No new claim begins; one in progress on another thread ends first.
        if self._turn.acquire(timeout=-1 if timeout is None else timeout):
            self._turn.release()

    def _claim_some(self, index: int, term: int) -> bool:
        """Claim once; return whether nothing is left to claim."""
        limit = self._limit(index)
        return limit > 0 and self._claim(self._offers[index], limit, term) < limit

    def _limit(self, index: int) -> int:
        """How many tasks to claim now. Tasks beyond MOST_UNSTARTED would wait here while another worker may be free.
        Many small claims cost more than a large one, so while outcomes about to be written will free more slots, a few
        free ones do not start a claim."""
        free = self._active_tasks.free()
        if free < self._active_tasks.slots // _SHARE and (self._reporter.waiting() or self._unstarted()):
            return 0
        most = self._threads.free() if index else LARGEST_BATCH
        room = LARGEST_WEIGHT - self._active_tasks.weight
        if self._usual_weight and len(self._active_tasks):
            most = min(most, int(room / self._usual_weight))
        return max(0, min(free, most, LARGEST_BATCH, MOST_UNSTARTED - self._unstarted()))

    def _claim(self, kind: list[Offer], limit: int, term: int) -> int:
        with self._active_tasks.claim_under_way():
            asked_at = time.monotonic()
            claimed = self._store.claim(self._worker_id, kind, limit)
            seconds = time.monotonic() - asked_at
            active = self._fitting(claimed, term)
            self._active_tasks.add(active)
        self._metrics.claimed(active, seconds)
        if active:
            _log.debug("tasks_claimed", count=len(active))
            self._hand_over(active)
        return len(claimed)

    def _fitting(self, claimed: list[ClaimedTask], term: int) -> list[ActiveTask]:
        """Return the tasks that fit into memory, at least one if nothing else is held, and hand back the rest."""
        if all([len(task.payload) <= _LIGHT for task in claimed]):
            self._usual_weight = 0.0
            return [self._active(task, term) for task in claimed]
        active: list[ActiveTask] = []
        held, claimed_weight = self._active_tasks.weight, 0
        for task in claimed:
            own = len(task.payload)
            if own > _LIGHT:
                own = weight_of(task.payload.encode("utf-8"))
            claimed_weight += own
            if held + own > LARGEST_WEIGHT and (active or len(self._active_tasks)):
                self._reporter.report(HandedBack(task.lease))
                continue
            active.append(self._active(task, term, own))
            held += own
        self._usual_weight = claimed_weight / len(claimed)
        return active

    def _active(self, claimed: ClaimedTask, term: int, weight: int = 0) -> ActiveTask:
        task_type = self._registry.get(claimed.task_type)
        if task_type is None:
            # The claim asks only for types of this registry.
            raise AssertionError(f"claimed a task of the unknown type {claimed.task_type!r}")
        context = TaskContext(claimed, self._reporter.note_progress)
        if not task_type.is_async:
            # Taken at the claim, so that the next one does not count the thread as free.
            self._threads.take(claimed.lease)
        return ActiveTask(claimed, task_type, context, term, weight)


def _offer(item: TaskType) -> Offer:
    return Offer(item.name, item.timeout_seconds, item.max_running, item.max_running_per_user)
