"""Takes tasks from workers that fell silent, and from handlers far past their deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from service_tasks.domain.retry import RetryPolicy
from service_tasks.domain.task import Lease, LostTask, Outcome
from service_tasks.engine.duties import DatabaseDuty
from service_tasks.engine.metrics import WorkerMetrics
from service_tasks.engine.ports import WorkerStore
from service_tasks.engine.registry import Registry
from service_tasks.engine.runner import decide_lost
from servicekit.observing.logs import get_logger
from servicekit.process.backoff import draw, jittered

LARGEST_BATCH = 500
LONGEST_PAUSE_SECONDS = 5.0
_log = get_logger(__name__)


class Rescuer(DatabaseDuty):
    """Runs in the leader. It acts only once connected for a whole lease: after an outage every worker looks dead, and
    each gets that long to send a heartbeat."""

    def __init__(
        self,
        *,
        store: WorkerStore,
        leads: Callable[[], bool],
        worker_name: str,
        lease_seconds: float,
        registry: Registry,
        policy: RetryPolicy,
        on_death: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        super().__init__("rescuer", on_death=on_death)
        self._store = store
        self._leads = leads
        self._worker_name = worker_name
        self._lease_seconds = lease_seconds
        self._registry = registry
        self._policy = policy
        self._monotonic = monotonic
        self._metrics = metrics or WorkerMetrics()
        self._longest_pause = min(LONGEST_PAUSE_SECONDS, lease_seconds / 4)
        self._connected_since: float | None = None
        self._asked_at = 0.0

    def work(self) -> float:
        now = self._monotonic()
        # A process that was frozen for a while is treated like one that was cut off.
        if self._connected_since is None or now - self._asked_at > self._lease_seconds / 2:
            self._connected_since = now
        self._asked_at = now
        # Done in every worker: success shows that this one is connected.
        self._store.forget_dead_workers()
        if self._leads() and now - self._connected_since >= self._lease_seconds:
            self._rescue()
        return jittered(self._longest_pause)

    def database_is_away(self) -> None:
        self._connected_since = None

    def _policy_of(self, task_type: str) -> RetryPolicy:
        known = self._registry.get(task_type)
        return known.retry if known is not None and known.retry is not None else self._policy

    def _rescue(self) -> None:
        lost: dict[Lease, LostTask] = {}
        #: by worker and number of suspects, over all batches: tasks of earlier ones no longer count in the table
        company: dict[tuple[UUID, int | None], int] = {}

        def decide(task: LostTask) -> Outcome:
            lost[task.lease] = task
            key = task.worker_id, task.suspects
            company[key] = max(task.company, company.get(key, 0))
            with_all = replace(task, company=company[key])
            return decide_lost(with_all, draw(), self._policy_of(task.task_type))

        while not self.stopping:
            lost.clear()
            rescued = self._store.rescue(
                lease_seconds=self._lease_seconds,
                limit=LARGEST_BATCH,
                rescuer=self._worker_name,
                decide=decide,
            )
            for outcome in rescued:
                self._metrics.rescue(lost[outcome.lease], outcome)
                _log.warning("task_rescued", task_id=str(outcome.lease.task_id), outcome=type(outcome).__name__)
            if len(rescued) < LARGEST_BATCH:
                return
