"""What a relay counts and metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 15, 60, 300, 3600)


class RelayMetrics:
    """Thread-safe."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seen: set[str] = set()
        self._active = Gauge(
            "siteworks_relay_active", "1 while this relay delivers; it stands by otherwise.", registry=registry
        )
        by_destination = ["destination"]
        self._lag = Histogram(
            "siteworks_relay_lag_seconds",
            "Time from an event to its acknowledgement by a destination, in seconds.",
            by_destination,
            buckets=_SECONDS,
            registry=registry,
        )
        self._failures = Counter(
            "siteworks_relay_failures_total",
            "Batches that did not get through because the destination was away.",
            by_destination,
            registry=registry,
        )
        self._refusals = Counter(
            "siteworks_relay_refusals_total", "Events that a destination refused.", by_destination, registry=registry
        )
        self._pending = Gauge(
            "siteworks_relay_pending_events", "Events that wait for a destination.", by_destination, registry=registry
        )
        self._given_up = Gauge(
            "siteworks_relay_given_up_events",
            "Events that a destination refused for good; kept with the reason.",
            by_destination,
            registry=registry,
        )
        self._oldest = Gauge(
            "siteworks_relay_oldest_event_seconds",
            "Age of the oldest event that waits for a destination, in seconds; 0 when none does.",
            by_destination,
            registry=registry,
        )

    def active(self, is_active: bool) -> None:
        """Say whether this relay delivers."""
        self._active.set(is_active)

    def delivered(self, destination: str, seconds: float) -> None:
        """Count an acknowledged event, that many seconds after it happened."""
        self._lag.labels(destination).observe(max(0.0, seconds))

    def failed(self, destination: str) -> None:
        """Count a batch for a destination that is away."""
        self._failures.labels(destination).inc()

    def refused(self, destination: str) -> None:
        """Count an event that was refused."""
        self._refusals.labels(destination).inc()

    def measured(self, backlog: Mapping[str, tuple[int, int, float]], destinations: Iterable[str]) -> None:
        """Show, by destination, what waits, what was given up, and the age of the oldest waiting."""
        # One that is in neither any more waits for nothing.
        self._seen |= {*backlog, *destinations}
        for destination in self._seen:
            pending, given_up, oldest = backlog.get(destination, (0, 0, 0.0))
            self._pending.labels(destination).set(pending)
            self._given_up.labels(destination).set(given_up)
            self._oldest.labels(destination).set(oldest)
