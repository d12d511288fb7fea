"""The state of all tasks, as metrics of the task service."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service_tasks.domain.task import Status
from service_tasks.schemas.stats import TaskStatsView
from service_tasks.use_cases.stats import Stats
from servicekit.identity.reach import Reach
from servicekit.wire.errors import DeadlineExceeded, Unavailable

#: types that no live worker runs and this process does not know, as one label: clients may invent any number
OTHER = "other"
#: the same from every process of the service
FROM_THE_DATABASE = (
    "siteworks_tasks",
    "siteworks_tasks_oldest_ready_seconds",
    "siteworks_task_workers",
    "siteworks_task_slots",
    "siteworks_task_last_beat_seconds",
)


class StatsCollector(Collector):
    """Queries the database at each scrape, as `GET /tasks/stats` does; no metrics while it is away."""

    def __init__(self, stats: Stats, known: Collection[str], registry: CollectorRegistry) -> None:
        self._stats = stats
        self._known = frozenset(known)
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not query the database."""
        return []

    def collect(self) -> Iterable[Metric]:
        try:
            found = self._stats.show(reach=Reach.all())
        except (Unavailable, DeadlineExceeded):
            return
        yield self._tasks(found)
        yield GaugeMetricFamily(
            "siteworks_tasks_oldest_ready_seconds",
            "How long the oldest ready task has been due, in seconds; 0 when none is ready.",
            value=found.oldest_ready_seconds or 0.0,
        )
        workers = GaugeMetricFamily(
            "siteworks_task_workers", "Workers, alive or silent beyond their lease.", labels=["state"]
        )
        workers.add_metric(["alive"], found.workers.alive)
        workers.add_metric(["silent"], found.workers.silent)
        yield workers
        slots = GaugeMetricFamily(
            "siteworks_task_slots",
            "Places of the workers alive: for tasks, and threads among them.",
            labels=["kind", "state"],
        )
        for kind, all_of_them, busy in (
            ("task", found.workers.slots, found.workers.busy),
            ("thread", found.workers.threads, found.workers.busy_threads),
        ):
            slots.add_metric([kind, "busy"], busy)
            slots.add_metric([kind, "free"], max(0, all_of_them - busy))
        yield slots
        yield GaugeMetricFamily(
            "siteworks_task_last_beat_seconds",
            "How long the worker that has been silent the longest has been so, in seconds.",
            value=max((worker.last_beat_seconds for worker in found.workers.workers), default=0.0),
        )

    def _tasks(self, found: TaskStatsView) -> Metric:
        family = GaugeMetricFamily(
            "siteworks_tasks",
            "Tasks, by status and type; other: types that no worker runs and the service does not know.",
            labels=["status", "task_type"],
        )
        known = {*self._known, *(name for worker in found.workers.workers for name in worker.task_types)}
        for status in Status:
            rest = getattr(found.counts, status)
            for one in found.types:
                if one.task_type in known:
                    count = getattr(one.counts, status)
                    rest -= count
                    family.add_metric([status, one.task_type], count)
            family.add_metric([status, OTHER], max(0, rest))
        return family
