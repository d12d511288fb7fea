"""The tasks that this worker holds, and its free slots."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TypeAlias

from service_tasks.domain.task import ClaimedTask, Lease, Outcome
from service_tasks.engine.context import TaskContext
from service_tasks.engine.registry import TaskType


class StopReason(Enum):
    """Why a handler is told to stop before its end."""

    CANCELLED = "cancelled"
    LEASE_LOST = "lease_lost"
    HAND_BACK = "hand_back"


class ActiveTask:
    """A claimed task, until its outcome is written."""

    __slots__ = (
        "cancel_handler",
        "claimed",
        "context",
        "is_over",
        "lease",
        "ran_seconds",
        "settled",
        "started_at",
        "stop_reason",
        "term",
        "thread_started",
        "type",
        "weight",
    )

    def __init__(
        self, claimed: ClaimedTask, task_type: TaskType, context: TaskContext, term: int = 0, weight: int = 0
    ) -> None:
        """`term` is the heartbeat's from before the claim; `weight` is the memory of a large payload, in bytes."""
        self.claimed = claimed
        self.weight = weight
        self.term = term
        self.lease = claimed.lease
        self.type = task_type
        self.context = context
        self.stop_reason: StopReason | None = None
        #: it is too late for a result
        self.is_over = False
        #: set by the runner while the handler runs; safe to call from any thread
        self.cancel_handler: Callable[[], None] | None = None
        self.settled = False
        #: plain functions only: the thread has started, and frees its slot itself
        self.thread_started = False
        #: when its handler began, on the runner's clock
        self.started_at = 0.0
        #: how long the handler ran, once it has ended
        self.ran_seconds = 0.0

    def stop(self, reason: StopReason) -> None:
        """Tell the handler to stop. The first reason counts; a lost or cancelled task is never handed back."""
        if self.stop_reason is None or self.stop_reason is StopReason.HAND_BACK:
            self.stop_reason = reason
            self.is_over = reason is not StopReason.HAND_BACK
        self.context._request_stop()
        if self.cancel_handler is not None:
            self.cancel_handler()


#: None: the lease is lost, so there is no outcome to write.
Ended: TypeAlias = tuple[ActiveTask, Outcome | None]


class ActiveTasks:
    """Shared by the duties of one worker. `slots` counts async handlers; threads are counted by the runner."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        #: tasks added since the start
        self.added = 0
        #: a claim is in progress
        self.is_claiming = False
        #: claims whose tasks have been added
        self.claims_ended = 0
        #: the sum of the weights of all tasks held
        self.weight = 0
        self._lock = threading.Lock()
        self._active: dict[Lease, ActiveTask] = {}

    def __len__(self) -> int:
        return len(self._active)

    def free(self) -> int:
        return max(0, self.slots - len(self._active))

    @contextmanager
    def claim_under_way(self) -> Iterator[None]:
        """Holds for one claim at a time, until its tasks have been added."""
        self.is_claiming = True
        try:
            yield
        finally:
            self.claims_ended += 1
            self.is_claiming = False

    def add(self, tasks: Collection[ActiveTask]) -> None:
        with self._lock:
            for task in tasks:
                self._active[task.lease] = task
            self.added += len(tasks)
            self.weight += sum([task.weight for task in tasks])

    def remove(self, leases: Iterable[Lease]) -> list[ActiveTask | None]:
        """Return the removed tasks, in the same order; None for one that was not held."""
        with self._lock:
            removed = [self._active.pop(lease, None) for lease in leases]
            if self.weight:
                self.weight -= sum([task.weight for task in removed if task is not None])
        return removed

    def get(self, lease: Lease) -> ActiveTask | None:
        return self._active.get(lease)

    def settle(self, ended: Iterable[Ended]) -> list[Ended]:
        """Return those not settled before: the caller may report their outcomes."""
        mine = []
        with self._lock:
            for pair in ended:
                task = pair[0]
                if not task.settled:
                    task.settled = True
                    mine.append(pair)
        return mine

    def snapshot(self) -> list[ActiveTask]:
        with self._lock:
            return list(self._active.values())

    def unsettled(self) -> list[ActiveTask]:
        return [task for task in self.snapshot() if not task.settled]
