"""The metrics of the event streams beyond those of every service."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service_tasks.streams.feed import Feed


class StreamMetrics(Collector):
    """Watchers and watched tasks are read at each scrape."""

    def __init__(self, registry: CollectorRegistry, feed: Feed) -> None:
        self._feed = feed
        self._events = Counter(
            "siteworks_task_events_total", "Events sent to watchers, by their name.", ["event"], registry=registry
        )
        registry.register(self)

    def sent(self, event: str) -> None:
        self._events.labels(event).inc()

    def collect(self) -> Iterable[Metric]:
        return [
            GaugeMetricFamily("siteworks_task_watchers", "Event streams open.", value=self._feed.watchers),
            GaugeMetricFamily("siteworks_task_watched", "Different tasks that are watched.", value=self._feed.tasks),
            CounterMetricFamily(
                "siteworks_task_looks_total", "Statements sent to look at all watched tasks.", value=self._feed.looks
            ),
        ]
