"""Alarms, dashboard and documentation speak of the metrics that there are, with the labels they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml

from scripts.reference import metrics
from tests.support.markdown import CHECKOUT

ALERTS = CHECKOUT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARDS = sorted((CHECKOUT / "deploy" / "grafana").glob("*.json"))


def exported() -> dict[str, set[str]]:
    """Every series of every process, with its labels."""
    found: dict[str, set[str]] = {}
    for _, registry in metrics.registries():
        found |= metrics.series(registry)
    return found


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
