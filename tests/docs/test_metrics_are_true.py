"""Alarms, dashboard and documentation speak of the metrics that there are, with the labels they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from api_gateway.limits import Bulkhead, EventLoopLag, RetryBudget
from api_gateway.metrics import GatewayMetrics
from service_tasks.engine.registry import Registry
from service_tasks.engine.worker import Worker, WorkerOptions
from service_tasks.ingest.consumer import Counts
from service_tasks.ingest.metrics import IngestMetrics
from service_tasks.metrics.stats import StatsCollector
from service_tasks.metrics.worker import WorkerCollector
from service_tasks.streams.feed import Feed
from service_tasks.streams.metrics import StreamMetrics
from service_tasks.task_types.noop import noop
from service_tasks.use_cases.stats import Census, Figures, Stats
from servicekit.circuits import Circuit, Transition
from servicekit.events.relay_metrics import RelayMetrics
from servicekit.observing.metrics import Metrics
from tests.support.markdown import CHECKOUT, Document

ALERTS = CHECKOUT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARDS = sorted((CHECKOUT / "deploy" / "grafana").glob("*.json"))
_SUFFIXES = ("_bucket", "_sum", "_count", "_total", "_created")


def exported() -> dict[str, set[str]]:
    """Every series of a gateway, event streams, a relay, ingestion, the task service and a worker that have seen
    something of everything, with its labels."""
    metrics = Metrics("api_gateway")
    measures = GatewayMetrics(metrics.registry)
    measures.watch(Circuit("users"), Bulkhead(), RetryBudget())
    measures.watch_lag(EventLoopLag(1))
    measures.called("users", "success", 0.1)
    measures.called("users", "not_permitted", None)
    measures.refused("users", "circuit_open")
    measures.uncounted("users")
    measures.retried("users")
    measures.circuit_moved(_transition())
    relay = RelayMetrics(metrics.registry)
    relay.active(True)
    relay.delivered("orders", 0.1)
    relay.failed("orders")
    relay.refused("orders")
    relay.measured({}, ["orders"])
    metrics.observe(method="GET", route="/users", status=200, seconds=0.1)
    StreamMetrics(metrics.registry, Feed(lambda _: {}, interval=1, limit=1)).told("end")
    IngestMetrics(Counts(waiting=0), metrics.registry)
    WorkerCollector(_worker(), metrics.registry)
    StatsCollector(Stats(_Nothing()), ["noop"], metrics.registry)
    return series(metrics.registry)


def _worker() -> Worker:
    nobody: Any = None  # it is never started
    return Worker(
        store=nobody,
        heartbeat_store=nobody,
        due_store=nobody,
        maintenance_store=nobody,
        open_wake_ups=nobody,
        registry=Registry([noop]),
        options=WorkerOptions(),
    )


class _Nothing:
    """A task service without tasks."""

    def figures(self) -> Figures:
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


def _transition() -> Transition:
    moved: list[Transition] = []
    Circuit("users", listeners=[moved.append]).force("open")
    return moved[0]


def series(registry: CollectorRegistry) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for metric in registry.collect():
        for sample in metric.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return {name: labels for name, labels in found.items() if name.startswith("siteworks_")}


def expressions() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for dashboard in DASHBOARDS:
        for panel in json.loads(dashboard.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                yield panel["title"], target["expr"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_expression_asks_for_series_and_labels_that_there_are(where: str, expression: str) -> None:
    known = exported()
    named = re.findall(r"(siteworks_\w+)(?:\{([^}]*)\})?", expression)
    assert named, where
    labels: set[str] = set()
    for name, selector in named:
        assert name in known, f"{where}: {name}"
        labels |= known[name]
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)) <= known[name], f"{where}: {selector}"
    for grouping in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {label.strip() for label in grouping.split(",")} <= labels, f"{where}: by ({grouping})"


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_expression_is_one(where: str, expression: str) -> None:
    # What Grafana puts in for its own name is a duration.
    promql_parser.parse(expression.replace("$__rate_interval", "1m"))


@pytest.mark.parametrize("expression", ["sum by (status (rate(x[5m]))", "rate(x)", "x{status=}", "max(x) by"])
def test_what_is_no_expression_is_seen(expression: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        promql_parser.parse(expression)


def test_every_alarm_says_what_prometheus_needs() -> None:
    document = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    assert set(document) == {"groups"}
    for group in document["groups"]:
        assert set(group) <= {"name", "interval", "limit", "rules"}
        for rule in group["rules"]:
            assert {"alert", "expr", "labels", "annotations"} <= set(rule)
            assert set(rule) <= {"alert", "expr", "for", "keep_firing_for", "labels", "annotations"}
            assert re.fullmatch(r"[0-9]+[smhd]", str(rule.get("for", "0s")))
            # What an annotation names is a label that the alarm has.
            kept = {label for names in re.findall(r"\bby \(([^)]*)\)", rule["expr"]) for label in names.split(", ")}
            assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= kept, rule["alert"]


def family(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name)


def test_every_metric_is_in_the_operations_document_with_its_labels() -> None:
    written = {
        family(row[0].strip("`")): set(re.findall(r"`(\w+)`", row[2].partition(":")[0] if ":" in row[2] else row[2]))
        for row in Document(CHECKOUT / "docs" / "operations.md").rows("Metrics")
    }
    there: dict[str, set[str]] = {}
    for name, labels in exported().items():
        there.setdefault(family(name), set()).update(labels - {"le"})
    assert set(written) == set(there)
    for name, labels in written.items():
        assert labels == there[name], name


def test_the_labels_of_a_metric_have_few_values() -> None:
    allowed = {
        "circuit",
        "code",
        "destination",
        "duty",
        "event",
        "kind",
        "le",
        "method",
        "new",
        "old",
        "outcome",
        "reason",
        "route",
        "service",
        "state",
        "status",
        "task_type",
        "upstream",
    }
    assert {label for labels in exported().values() for label in labels} <= allowed


def test_alarms_and_panels_have_names_of_their_own() -> None:
    dashboards: list[dict[str, Any]] = [json.loads(file.read_text(encoding="utf-8")) for file in DASHBOARDS]
    for dashboard in dashboards:
        assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for name in ("uid", "title"):
        assert len({dashboard[name] for dashboard in dashboards}) == len(dashboards)
    names = [rule["alert"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert len(set(names)) == len(names)
