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

LARGEST_BATCH = 200
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
        hand_over: Callable[[list[ActiveTask]], None],
        poll_seconds: float,
        on_death: Callable[[], None],
    ) -> None:
        """`hand_over` starts the handlers; it must not block."""
        super().__init__("claimer", on_death=on_death)
        self._store = store
        self._worker_id = worker_id
        self._registry = registry
        self._board = board
        self._threads = threads
        self._reporter = reporter
        self._hand_over = hand_over
        self._poll_seconds = poll_seconds
        self._kinds = (
            [item for item in registry if item.is_async],
            [item for item in registry if not item.is_async],
        )

    def work(self) -> float:
        more = True
        while more and not self.stopping:
            more = False
            for kind, free in zip(self._kinds, (self._board.free(), self._threads.free()), strict=True):
                limit = min(free, self._board.free(), LARGEST_BATCH)
                if kind and limit and not self.stopping:
                    more = self._claim(kind, limit) == limit or more
        return jittered(self._poll_seconds)

    def _claim(self, kind: list[TaskType], limit: int) -> int:
        offers = [Offer(item.name, item.timeout_seconds) for item in kind]
        with self._board.claiming:
            claimed = self._store.claim(self._worker_id, offers, limit)
            active = [self._active(task) for task in claimed]
            self._board.add(active)
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
