"""Makes the tasks of schedules when their time has come."""

from __future__ import annotations

from collections.abc import Callable

from service_tasks.domain.schedule import DueSchedule, Plan, plan_of
from service_tasks.engine.duties import DatabaseDuty
from service_tasks.engine.metrics import WorkerMetrics
from service_tasks.engine.ports import DueStore
from servicekit.observing.logs import get_logger
from servicekit.process.backoff import jittered

LARGEST_BATCH = 50
_SHORTEST_SECONDS = 0.005
_log = get_logger(__name__)


class Scheduler(DatabaseDuty):
    """Runs in the leader. A second leader finds the schedules locked or already advanced."""

    def __init__(
        self,
        *,
        store: DueStore,
        leads: Callable[[], bool],
        poll_seconds: float,
        on_made: Callable[[], None],
        on_death: Callable[[], None],
        metrics: WorkerMetrics | None = None,
    ) -> None:
        """`on_made` is called after new tasks were made; it must not block."""
        super().__init__("scheduler", on_death=on_death)
        self._store = store
        self._leads = leads
        self._poll_seconds = poll_seconds
        self._on_made = on_made
        self._metrics = metrics or WorkerMetrics()

    def work(self) -> float:
        pause = jittered(self._poll_seconds)
        while self._leads():
            firing = self._store.fire(LARGEST_BATCH, self._decide)
            self._metrics.schedules_due += firing.schedules
            self._metrics.schedule_tasks += firing.tasks
            if firing.tasks:
                self._on_made()
            if firing.schedules < LARGEST_BATCH or self.stopping:
                if firing.next_in_seconds is not None:
                    pause = min(pause, max(firing.next_in_seconds, _SHORTEST_SECONDS))
                break
        return pause

    def _decide(self, schedule: DueSchedule) -> Plan:
        plan = plan_of(schedule)
        if plan.problem is not None:
            self._metrics.schedules_stopped += 1
            _log.error("schedule_stopped", schedule_id=str(schedule.id), name=schedule.name, problem=plan.problem)
        elif not plan.runs or plan.runs[0] != schedule.due_at:
            self._metrics.schedules_missed += 1
            _log.warning("runs_missed", schedule_id=str(schedule.id), name=schedule.name, since=str(schedule.due_at))
        return plan
