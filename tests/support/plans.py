"""Reads PostgreSQL's plans for how tasks are found."""

from __future__ import annotations

from typing import Any


def scans_of(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Every scan of the tasks in a plan of EXPLAIN (FORMAT JSON); for a bitmap scan, the index scan below it."""
    below = [scan for child in node.get("Plans", ()) for scan in scans_of(child)]
    is_scan = node.get("Relation Name") == "tasks" and node["Node Type"].endswith("Scan")
    if node["Node Type"] == "Bitmap Index Scan" or (is_scan and node["Node Type"] != "Bitmap Heap Scan"):
        return [node, *below]
    return below
