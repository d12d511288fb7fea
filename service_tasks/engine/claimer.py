"""Takes ready tasks for as many free places as this worker has."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from service_tasks.domain.task import ClaimedTask
from service_tasks.engine.board import ActiveTask, Board
from service_tasks.engine.context import TaskContext
from service_tasks.engine.duties import DatabaseDuty, jittered
from service_tasks.engine.ports import Offer, WorkerStore
from service_tasks.engine.registry import Registry, TaskType
from service_tasks.engine.reporter import Reporter
from service_tasks.engine.runner import ThreadSlots
from servicekit.logs import get_logger

LARGEST_BATCH = 1000
#: of the places, so many must be free before a claim is worth its statement, if more are about to get free
_SHARE = 4
_log = get_logger(__name__)


class Claimer(DatabaseDuty):
    """Woken by announcements, by a place that gets free, and by a jittered poll behind both."""

    def __init__(
        self,
        *,
        store: WorkerStore,
        worker_id: UUID,
        registry: Registry,
        board: Board,
        threads: ThreadSlots,
        reporter: Reporter,
        unstarted: Callable[[], int],
        hand_over: Callable[[list[ActiveTask]], None],
        poll_seconds: float,
        on_death: Callable[[], None],
    ) -> None:
        """`hand_over` starts the handlers, without blocking; `unstarted` tells how many it has not started yet."""
        super().__init__("claimer", on_death=on_death)
        self._store = store
        self._worker_id = worker_id
        self._registry = registry
        self._board = board
        self._threads = threads
        self._reporter = reporter
        self._unstarted = unstarted
        self._hand_over = hand_over
        self._wants_places = False
        self._poll_seconds = poll_seconds
        #: of async handlers, and of plain functions
        self._offers = (
            [_offer(item) for item in registry if item.is_async],
            [_offer(item) for item in registry if not item.is_async],
        )
        self._has_limits = any(offer.is_limited for kind in self._offers for offer in kind)

    def place_freed(self) -> None:
        """Look again, if it was for want of places, or because of a limit, that not everything was claimed."""
        if self._wants_places or self._has_limits or self._store.limits_apply():
            self.wake()

    def work(self) -> float:
        waiting = {index for index, kind in enumerate(self._offers) if kind}
        while waiting and not self.stopping:
            for index in sorted(waiting):
                # Set before the places are counted: whoever frees one after that wakes us.
                self._wants_places = True
                limit = self._limit(self._threads.free() if index else LARGEST_BATCH)
                if not limit:
                    return jittered(self._poll_seconds)
                if self._claim(self._offers[index], limit) < limit:
                    waiting.discard(index)
        self._wants_places = False
        return jittered(self._poll_seconds)

    def _limit(self, most: int) -> int:
        """How many to claim now. One batch may wait for the event loop, so that it is never idle while the next
        claim is under way, and no more: another worker may be free. Many small claims cost more than a large one, so
        while outcomes are about to be written and free their places, a few free ones are not enough."""
        free = self._board.free()
        if free < self._board.slots // _SHARE and (self._reporter.waiting() or self._unstarted()):
            return 0
        return max(0, min(free, most, LARGEST_BATCH - self._unstarted()))

    def _claim(self, kind: list[Offer], limit: int) -> int:
        self._board.claims += 1
        try:
            active = [self._active(task) for task in self._store.claim(self._worker_id, kind, limit)]
            self._board.add(active)
        finally:
            self._board.claims += 1
        if active:
            _log.debug("tasks_claimed", count=len(active))
            self._hand_over(active)
        return len(active)

    def _active(self, claimed: ClaimedTask) -> ActiveTask:
        task_type = self._registry.get(claimed.task_type)
        if task_type is None:
            # The claim asks only for types of this registry.
            raise AssertionError(f"claimed a task of the unknown type {claimed.task_type!r}")
        context = TaskContext(claimed, self._reporter.note_progress)
        if not task_type.is_async:
            # Held from the claim on, so that the next claim does not count the thread as free.
            self._threads.take(claimed.lease)
        return ActiveTask(claimed, task_type, context)


def _offer(item: TaskType) -> Offer:
    return Offer(item.name, item.timeout_seconds, item.max_running, item.max_running_per_user)
