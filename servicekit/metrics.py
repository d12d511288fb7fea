"""Prometheus metrics of one process. Labels are route templates, never raw paths, so they stay few."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

UNMATCHED = "unmatched"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """A registry of its own with what every web process counts."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.registry = CollectorRegistry()
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
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
