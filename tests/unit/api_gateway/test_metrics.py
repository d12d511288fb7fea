"""What is counted is there from the start."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from api_gateway.limits import Bulkhead, RetryBudget
from api_gateway.metrics import GatewayMetrics
from servicekit.circuits import MOVES, Circuit

NAME = "siteworks_circuit_transitions_total"


def transitions(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels[label] for label in ("circuit", "old", "new", "reason")): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == NAME
    }


def test_every_change_of_a_circuit_stands_at_0_before_it_happens_and_at_1_afterwards() -> None:
    registry = CollectorRegistry()
    gateway_metrics = GatewayMetrics(registry)
    circuits = [Circuit(name, listeners=[gateway_metrics.circuit_moved]) for name in ("users", "orders")]
    for circuit in circuits:
        gateway_metrics.watch(circuit, Bulkhead(), RetryBudget())
    before = transitions(registry)
    assert before == {(circuit.name, *move): 0.0 for circuit in circuits for move in MOVES}

    for _ in range(5):
        circuits[1].acquire().failure(0.1, "timeout")
    # No series has come, so nobody missed its first count.
    assert transitions(registry) == {**before, ("orders", "closed", "open", "consecutive_failures"): 1.0}
