"""A worker's counts as metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service_tasks.domain.distribution import BOUNDS, Distribution
from service_tasks.engine.metrics import SIZES, Sizes, WorkerMetrics
from service_tasks.engine.worker import Worker

_ATTEMPTS = ("completed", "failed", "retried", "handed_back", "cancelled", "late")


class WorkerCollector(Collector):
    """Reads the counts when it is scraped, so that counting adds nothing to the cost of a task."""

    def __init__(self, worker: Worker, registry: CollectorRegistry) -> None:
        self._worker = worker
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        metrics = self._worker.metrics
        yield from _tasks(metrics)
        yield from _batches(metrics)
        yield from _state(self._worker)
        yield from _duties(metrics)


def _tasks(metrics: WorkerMetrics) -> Iterator[Metric]:
    by_type = ["task_type"]
    claimed = CounterMetricFamily("siteworks_worker_tasks_claimed_total", "Tasks taken to be run.", labels=by_type)
    attempts = CounterMetricFamily(
        "siteworks_worker_attempts_total",
        "Attempts that ended, by how. Late: after a cancel or a rescue, so that it did not count.",
        labels=[*by_type, "outcome"],
    )
    waits = HistogramMetricFamily(
        "siteworks_worker_wait_seconds", "From the moment a task was due to its claim, in seconds.", labels=by_type
    )
    runs = HistogramMetricFamily(
        "siteworks_worker_run_seconds", "How long attempts ran, in seconds, however they ended.", labels=by_type
    )
    for name, one in metrics.types():
        claimed.add_metric([name], one.claimed)
        for outcome in _ATTEMPTS:
            attempts.add_metric([name, outcome], getattr(one, outcome))
        for family, distribution in ((waits, one.waits), (runs, one.runs)):
            family.add_metric([name], _buckets(BOUNDS, distribution.counts), distribution.total)
    return iter((claimed, attempts, waits, runs))


def _batches(metrics: WorkerMetrics) -> Iterator[Metric]:
    yield _times(
        "siteworks_worker_claim_duration_seconds", "Time of a statement that claims, in seconds.", metrics.claims
    )
    yield _sizes("siteworks_worker_claim_tasks", "Tasks that one claim gave.", metrics.claim_sizes)
    yield _times(
        "siteworks_worker_flush_duration_seconds", "Time of writing a batch of outcomes, in seconds.", metrics.flushes
    )
    yield _sizes("siteworks_worker_flush_outcomes", "Outcomes written together.", metrics.flush_sizes)


def _state(worker: Worker) -> Iterator[Metric]:
    load = worker.load()
    slots = GaugeMetricFamily(
        "siteworks_worker_slots", "Tasks it may hold, and plain functions (threads) among them.", labels=["kind"]
    )
    busy = GaugeMetricFamily("siteworks_worker_busy_slots", "Those that it holds.", labels=["kind"])
    for family, tasks, threads in ((slots, load.slots, load.threads), (busy, load.busy, load.busy_threads)):
        family.add_metric(["task"], tasks)
        family.add_metric(["thread"], threads)
    yield slots
    yield busy
    yield GaugeMetricFamily(
        "siteworks_worker_hung_threads",
        "Threads whose function goes on although its task is over.",
        value=worker.hung_threads(),
    )
    yield GaugeMetricFamily(
        "siteworks_worker_loop_lag_seconds",
        "How long a handler has blocked the event loop, in seconds; from 2 on the worker claims nothing and hands back "
        "what it has not begun.",
        value=worker.loop_lag(),
    )
    yield GaugeMetricFamily(
        "siteworks_worker_unwritten_outcomes", "Outcomes that the database does not have yet.", value=worker.unwritten()
    )
    age = worker.heartbeat_age()
    yield GaugeMetricFamily(
        "siteworks_worker_heartbeat_age_seconds",
        "Seconds since the database last heard of it.",
        value=math.inf if age is None else age,
    )
    yield GaugeMetricFamily(
        "siteworks_worker_leads", "1 while it has the maintenance duties.", value=float(worker.leads())
    )
    away = GaugeMetricFamily(
        "siteworks_worker_database_away", "1 while a duty finds the database away.", labels=["duty"]
    )
    for duty, is_away in worker.away().items():
        away.add_metric([duty], float(is_away))
    yield away


def _duties(metrics: WorkerMetrics) -> Iterator[Metric]:
    for name, text, value in (
        (
            "siteworks_worker_lost_claims_total",
            "Claims whose answer was lost, found and handed back.",
            metrics.lost_claims,
        ),
        ("siteworks_promoter_tasks_total", "Tasks made ready because their time had come.", metrics.promoted),
        ("siteworks_scheduler_due_total", "Times that a schedule was due.", metrics.schedules_due),
        ("siteworks_scheduler_tasks_total", "Tasks made by schedules.", metrics.schedule_tasks),
        (
            "siteworks_scheduler_missed_total",
            "Times that a schedule was due so late that it had missed runs.",
            metrics.schedules_missed,
        ),
        ("siteworks_scheduler_stopped_total", "Schedules that could not go on.", metrics.schedules_stopped),
    ):
        yield CounterMetricFamily(name, text, value=value)
    rescued = CounterMetricFamily(
        "siteworks_rescuer_tasks_total",
        "Tasks taken from workers that fell silent (dead) or did not end them at their deadline (hung).",
        labels=["reason", "outcome"],
    )
    for labels, count in metrics.rescued.items():
        rescued.add_metric(labels, count)
    yield rescued
    pruned = CounterMetricFamily(
        "siteworks_pruner_removed_total", "Old tasks, and old records beside them, that were removed.", labels=["kind"]
    )
    pruned.add_metric(["task"], metrics.pruned_tasks)
    pruned.add_metric(["record"], metrics.pruned_records)
    yield pruned


def _times(name: str, text: str, distribution: Distribution) -> Metric:
    return HistogramMetricFamily(
        name, text, buckets=_buckets(BOUNDS, distribution.counts), sum_value=distribution.total
    )


def _sizes(name: str, text: str, sizes: Sizes) -> Metric:
    return HistogramMetricFamily(name, text, buckets=_buckets(SIZES, sizes.counts), sum_value=sizes.total)


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Cumulative counts, as the exposition format requires."""
    reached = 0
    buckets = []
    for bound, count in zip((*(str(float(bound)) for bound in bounds), "+Inf"), counts, strict=True):
        reached += count
        buckets.append((bound, float(reached)))
    return buckets
