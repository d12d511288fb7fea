"""The metrics, read from collectors after each has been used once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry

from api_gateway.limits import Bulkhead, EventLoopLag, RetryBudget
from api_gateway.metrics import GatewayMetrics
from scripts.reference.code import sentence, table
from service_tasks.engine.registry import Registry
from service_tasks.engine.worker import Worker, WorkerOptions
from service_tasks.ingest.consumer import IngestCounts
from service_tasks.ingest.metrics import IngestMetrics
from service_tasks.metrics.stats import StatsCollector
from service_tasks.metrics.worker import WorkerCollector
from service_tasks.streams.feed import Feed
from service_tasks.streams.metrics import StreamMetrics
from service_tasks.task_types.noop import noop
from service_tasks.use_cases.stats import Census, Figures, Stats
from servicekit.circuits import Circuit, Transition
from servicekit.events.relay_metrics import RelayMetrics
from servicekit.events.relay_store import Backlog
from servicekit.identity.reach import Reach
from servicekit.observing.metrics import Metrics

_SUFFIXES = ("_bucket", "_sum", "_count", "_total", "_created")


def registries() -> Iterator[tuple[str, CollectorRegistry]]:
    """The registry of each process."""
    metrics = Metrics("api_gateway")
    metrics.observe(method="GET", route="/users", status=200, seconds=0.1)
    yield "every process", metrics.registry
    for process, fill in (
        ("gateway", _gateway),
        ("tasks", _tasks),
        ("worker", _worker),
        ("events", _streams),
        ("relay", _relay),
        ("ingest", _ingest),
    ):
        registry = CollectorRegistry()
        fill(registry)
        yield process, registry


def series(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Every series of Siteworks in a registry, with its labels."""
    found: dict[str, set[str]] = {}
    for metric in registry.collect():
        for sample in metric.samples:
            if sample.name.startswith("siteworks_"):
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def page() -> str:
    """docs/reference/metrics.md."""
    parts = [
        "# Metrics",
        "What `/metrics` shows, in Prometheus' text format; [observing.md](../observing.md#metrics) says where. "
        "Labels are route templates, never raw paths. `./scripts/docs` writes this page from the collectors.",
    ]
    for process, registry in registries():
        rows = []
        for metric in registry.collect():
            if metric.name.startswith("siteworks_"):
                labels = dict.fromkeys(label for sample in metric.samples for label in sample.labels if label != "le")
                name = f"{metric.name}_total" if metric.type == "counter" else metric.name
                rows.append(
                    (f"`{name}`", metric.type, ", ".join(f"`{one}`" for one in labels), sentence(metric.documentation))
                )
        parts += [f"## {process[0].upper()}{process[1:]}", table(("metric", "type", "labels", "meaning"), rows)]
    return "\n\n".join(parts) + "\n"


def _gateway(registry: CollectorRegistry) -> None:
    metrics = GatewayMetrics(registry)
    metrics.watch(Circuit("users"), Bulkhead(), RetryBudget())
    metrics.watch_lag(EventLoopLag(1))
    metrics.called("users", "success", 0.1)
    metrics.called("users", "not_permitted", None)
    metrics.refused("users", "circuit_open")
    metrics.uncounted("users")
    metrics.retried("users")
    moved: list[Transition] = []
    Circuit("users", listeners=[moved.append]).force("open")
    metrics.circuit_moved(moved[0])


def _relay(registry: CollectorRegistry) -> None:
    relay = RelayMetrics(registry)
    relay.active("users", True)
    relay.delivered("users", "orders", 0.1)
    relay.failed("users", "orders")
    relay.refused("users", "orders")
    relay.measured("users", {"orders": Backlog()})


def _streams(registry: CollectorRegistry) -> None:
    StreamMetrics(registry, Feed(lambda _: {}, interval=1, limit=1)).sent("end")


def _ingest(registry: CollectorRegistry) -> None:
    IngestMetrics(IngestCounts(waiting=0), registry)


def _worker(registry: CollectorRegistry) -> None:
    nobody: Any = None  # the worker is never started
    worker = Worker(
        store=nobody,
        heartbeat_store=nobody,
        due_store=nobody,
        leader_store=nobody,
        prune_store=nobody,
        open_wake_ups=nobody,
        registry=Registry([noop]),
        options=WorkerOptions(),
    )
    WorkerCollector(worker, registry)


def _tasks(registry: CollectorRegistry) -> None:
    stats: Any = _NoTasks()
    StatsCollector(Stats(stats), ["noop"], registry)


class _NoTasks:
    """A task service without tasks."""

    def figures(self, *, reach: Reach) -> Figures:
        return Figures(
            now=datetime.now(UTC),
            census=Census({}, {}, {}, frozenset()),
            minutes={},
            types={},
            timed={},
            workers=[],
            alive=0,
            silent=0,
            slots=0,
            busy=0,
            threads=0,
            busy_threads=0,
        )
