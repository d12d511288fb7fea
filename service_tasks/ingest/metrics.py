"""Ingestion's counts as metrics."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service_tasks.ingest.consumer import IngestCounts

_COUNTERS = (
    ("received", "siteworks_ingest_messages_received_total", "Messages that the broker delivered."),
    (
        "redelivered",
        "siteworks_ingest_messages_redelivered_total",
        "Those among them that it had delivered before, to us or to another.",
    ),
    (
        "written",
        "siteworks_ingest_messages_written_total",
        "Messages dealt with: their task, their rejection or their being known is in the database.",
    ),
    (
        "rejected",
        "siteworks_ingest_messages_rejected_total",
        "Messages that made no task and are kept with the reason.",
    ),
    ("reconnects", "siteworks_ingest_reconnects_total", "Times that the broker was lost or could not be reached."),
)


class IngestMetrics(Collector):
    """Reads the counts when it is scraped, so that counting adds nothing to the cost of a message."""

    def __init__(self, counts: IngestCounts, registry: CollectorRegistry) -> None:
        self._counts = counts
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        counts = self._counts
        for count, name, text in _COUNTERS:
            yield CounterMetricFamily(name, text, value=getattr(counts, count))
        yield GaugeMetricFamily(
            "siteworks_ingest_connected", "1 while the broker is connected.", value=float(counts.connected)
        )
        yield GaugeMetricFamily(
            "siteworks_ingest_in_hand_messages", "Messages received and not yet written.", value=counts.in_hand
        )
        if counts.waiting is not None:
            yield GaugeMetricFamily(
                "siteworks_ingest_waiting_messages",
                "Messages that wait in the broker's queues, when last asked.",
                value=counts.waiting,
            )
