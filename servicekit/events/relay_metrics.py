"""Metrics of the relays."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from servicekit.events.relay_store import Backlog

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 15, 60, 300, 3600)
_LABELS = ("service", "destination")


class RelayMetrics:
    """Metrics of all relays in a process. `source` is the service whose events they are. Thread-safe."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seen: dict[str, set[str]] = {}
        self._active = Gauge(
            "siteworks_relay_active",
            "1 while the relay of this service delivers; it stands by otherwise.",
            ["service"],
            registry=registry,
        )
        self._lag = Histogram(
            "siteworks_relay_lag_seconds",
            "Time from an event to its acknowledgement by a destination, in seconds.",
            _LABELS,
            buckets=_SECONDS,
            registry=registry,
        )
        self._failures = Counter(
            "siteworks_relay_failures_total",
            "Batches that did not get through because the destination was away.",
            _LABELS,
            registry=registry,
        )
        self._refusals = Counter(
            "siteworks_relay_refusals_total", "Events that a destination refused.", _LABELS, registry=registry
        )
        self._pending = Gauge(
            "siteworks_relay_pending_events", "Events that wait for a destination.", _LABELS, registry=registry
        )
        self._given_up = Gauge(
            "siteworks_relay_given_up_events",
            "Events that a destination refused for good; kept with the reason.",
            _LABELS,
            registry=registry,
        )
        self._oldest = Gauge(
            "siteworks_relay_oldest_event_seconds",
            "Age of the oldest event that waits for a destination, in seconds; 0 when none does.",
            _LABELS,
            registry=registry,
        )

    def active(self, source: str, is_active: bool) -> None:
        """Set whether the relay of this service delivers."""
        self._active.labels(source).set(is_active)

    def delivered(self, source: str, destination: str, seconds: float) -> None:
        """Count an acknowledged event, that many seconds after it happened."""
        self._lag.labels(source, destination).observe(max(0.0, seconds))

    def failed(self, source: str, destination: str) -> None:
        """Count a batch for an unreachable destination."""
        self._failures.labels(source, destination).inc()

    def refused(self, source: str, destination: str) -> None:
        self._refusals.labels(source, destination).inc()

    def measured(self, source: str, backlog: Mapping[str, Backlog]) -> None:
        """Set the backlog of each destination."""
        # A destination that is gone since the last measurement has none.
        seen = self._seen.setdefault(source, set())
        seen.update(backlog)
        for destination in seen:
            waiting, given_up, oldest = backlog.get(destination, Backlog())
            self._pending.labels(source, destination).set(waiting)
            self._given_up.labels(source, destination).set(given_up)
            self._oldest.labels(source, destination).set(oldest)
