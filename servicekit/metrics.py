"""Prometheus metrics of a server. Labels are route templates, never raw paths, so they stay few.

The processes of one server count together when its master has set PROMETHEUS_MULTIPROC_DIR (prometheus_client's name)
before any of them imports this module.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

UNMATCHED = "unmatched"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """A registry of its own with what every web process counts.

    `same_everywhere` names the gauges that all processes of the server read alike.
    """

    def __init__(self, service: str, *, same_everywhere: Collection[str] = ()) -> None:
        self.service = service
        self.registry = CollectorRegistry()
        self._shown = self.registry
        directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if directory:
            self._shown = CollectorRegistry()
            self._shown.register(_AllProcesses(self.registry, directory, same_everywhere))
        else:
            ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "siteworks_http_requests_total",
            "Requests answered.",
            ["service", "method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "siteworks_http_request_duration_seconds",
            "Time from the first byte of a request to its answer, in seconds.",
            ["service", "method", "route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer; `route` is a template such as `/users/{id}`, or `UNMATCHED`."""
        method = method if method in _METHODS else "other"
        key = (method, route, status)
        kept = self._children.get(key)
        if kept is None:
            # As bounded as the labels themselves; looking a child up costs more than counting on it.
            kept = self._children[key] = (
                self._requests.labels(self.service, method, route, str(status)),
                self._seconds.labels(self.service, method, route),
            )
        kept[0].inc()
        kept[1].observe(seconds)

    def render(self) -> tuple[bytes, str]:
        """Give the text exposition and its media type."""
        return generate_latest(self._shown), CONTENT_TYPE_LATEST


class _AllProcesses(Collector):
    """What all processes counted, and this one's gauges: with its id, unless they are the same everywhere."""

    def __init__(self, own: CollectorRegistry, directory: str, same_everywhere: Collection[str]) -> None:
        self._own = own
        self._directory = directory
        self._same = frozenset(same_everywhere)

    def collect(self) -> Iterable[Metric]:
        counted = MultiProcessCollector(CollectorRegistry(), path=self._directory)  # type: ignore[no-untyped-call]
        yield from counted.collect()  # type: ignore[no-untyped-call]
        process = {"process": str(os.getpid())}
        for family in self._own.collect():
            if family.type != "gauge":
                continue
            if family.name not in self._same:
                family.samples = [one._replace(labels={**one.labels, **process}) for one in family.samples]
            yield family
