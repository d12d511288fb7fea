"""Metrics of the gateway beyond those of every service. Labels have few values: upstreams, states, reasons."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api_gateway.limits import Bulkhead, EventLoopLag, RetryBudget
from api_gateway.revocations import Revocations
from servicekit.circuits import MOVES, Circuit, Transition
from servicekit.observing.metrics import Named, Tallies, Tally

_KINDS = ("success", "failure", "neutral", "not_permitted")
#: All processes of the gateway share these.
SAME_IN_EVERY_PROCESS = (
    "siteworks_circuit_state",
    "siteworks_circuit_failure_rate",
    "siteworks_gateway_upstream_ready",
)
_STATES = ("closed", "open", "half_open")


class GatewayMetrics(Collector):
    """Counters for transitions, refusals and retries; circuits and queues are read at each scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._watched: list[tuple[Circuit, Bulkhead, RetryBudget]] = []
        self._lag = EventLoopLag(0)
        self._revocations: Revocations | None = None
        self._transitions = Counter(
            "siteworks_circuit_transitions_total",
            "Changes of a circuit's state; every one that can be is there from the start, at 0.",
            ["circuit", "old", "new", "reason"],
            registry=registry,
        )
        self._uncounted = Counter(
            "siteworks_circuit_uncounted_total",
            "Outcomes dropped because a process that does not run held the circuit up.",
            ["circuit"],
            registry=registry,
        )
        self._refused = Counter(
            "siteworks_gateway_refusals_total",
            "Requests answered without an upstream's answer, by error code; no upstream when none was meant.",
            ["upstream", "code"],
            registry=registry,
        )
        self._retries = Counter(
            "siteworks_gateway_retries_total", "Requests sent a second time.", ["upstream"], registry=registry
        )
        self._calls = Tallies(
            registry,
            Named(
                "siteworks_circuit_calls_total",
                "Calls by how they ended for the circuit; not_permitted ones were never sent.",
                ["circuit", "kind"],
            ),
            Named(
                "siteworks_gateway_upstream_duration_seconds",
                "Time from the sending of a call to the end of its answer (of a stream: to its first bytes), "
                "in seconds.",
                ["upstream"],
            ),
        )
        self._tallies: dict[tuple[str, str], Tally] = {}
        registry.register(self)

    def watch(self, circuit: Circuit, bulkhead: Bulkhead, budget: RetryBudget) -> None:
        self._watched.append((circuit, bulkhead, budget))
        # Start at 0: `increase()` misses the first count of a counter that appears with it.
        self._retries.labels(circuit.name)
        self._uncounted.labels(circuit.name)
        for old, new, reason in MOVES:
            self._transitions.labels(circuit.name, old, new, reason)
        for kind in _KINDS:
            self._tallies[circuit.name, kind] = self._calls.of(circuit.name, kind)

    def watch_lag(self, lag: EventLoopLag) -> None:
        self._lag = lag

    def watch_revocations(self, revocations: Revocations) -> None:
        self._revocations = revocations

    def circuit_moved(self, transition: Transition) -> None:
        self._transitions.labels(transition.name, transition.old, transition.new, transition.reason).inc()

    def uncounted(self, circuit: str) -> None:
        self._uncounted.labels(circuit).inc()

    def refused(self, upstream: str, code: str) -> None:
        self._refused.labels(upstream, code).inc()

    def retried(self, upstream: str) -> None:
        self._retries.labels(upstream).inc()

    def called(self, upstream: str, kind: str, seconds: float | None) -> None:
        self._tallies[upstream, kind].add(seconds)

    def collect(self) -> Iterable[Metric]:
        state = GaugeMetricFamily(
            "siteworks_circuit_state", "1 for the state the circuit is in.", labels=["circuit", "state"]
        )
        rate = GaugeMetricFamily(
            "siteworks_circuit_failure_rate", "Failed share of the calls in the window, 0 to 1.", labels=["circuit"]
        )
        ready = GaugeMetricFamily(
            "siteworks_gateway_upstream_ready",
            "0 while the upstream does not answer /readyz, or says that it is not ready, else 1.",
            labels=["upstream"],
        )
        busy = GaugeMetricFamily(
            "siteworks_gateway_upstream_requests",
            "Requests under way at an upstream, of the process that answers.",
            labels=["upstream"],
        )
        waiting = GaugeMetricFamily(
            "siteworks_gateway_upstream_waiting",
            "Requests waiting for an upstream, of the process that answers.",
            labels=["upstream"],
        )
        lag = GaugeMetricFamily("siteworks_gateway_lag_seconds", "How late the event loop ran what was due last.")
        lag.add_metric([], self._lag.seconds)
        age = GaugeMetricFamily(
            "siteworks_gateway_revocations_age_seconds",
            "How long ago this process last learned which logins have ended; +Inf if never, 0 where nobody logs in.",
        )
        age.add_metric([], 0.0 if self._revocations is None else self._revocations.age)
        left = GaugeMetricFamily(
            "siteworks_gateway_retry_budget", "Retries that may follow at once.", labels=["upstream"]
        )
        for circuit, bulkhead, budget in self._watched:
            seen = circuit.snapshot()
            for name in _STATES:
                state.add_metric([circuit.name, name], float(seen.state == name))
            rate.add_metric([circuit.name], seen.failure_rate)
            ready.add_metric([circuit.name], float(not seen.seen_away))
            busy.add_metric([circuit.name], bulkhead.in_use)
            waiting.add_metric([circuit.name], bulkhead.waiting)
            left.add_metric([circuit.name], budget.left)
        return [state, rate, ready, busy, waiting, left, lag, age]
