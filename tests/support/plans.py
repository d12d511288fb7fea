"""Reads PostgreSQL's plans for how rows are found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from sqlalchemy import event

from servicekit.database.engine import Database


def scans_of(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Every scan of the tasks in a plan of EXPLAIN (FORMAT JSON); for a bitmap scan, the index scan below it."""
    below = [scan for child in node.get("Plans", ()) for scan in scans_of(child)]
    is_scan = node.get("Relation Name") == "tasks" and node["Node Type"].endswith("Scan")
    if node["Node Type"] == "Bitmap Index Scan" or (is_scan and node["Node Type"] != "Bitmap Heap Scan"):
        return [node, *below]
    return below


@contextmanager
def selects_of(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Note the statements of the block that read, with their parameters."""
    seen: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if "SELECT" in statement:
            seen.append((re.sub("^SET LOCAL [^;]*; ", "", statement), parameters))

    def once(statement: str, parameters: Any, **options: Any) -> list[Any]:
        note(None, None, statement, parameters, None, False)
        return Database.once(database, statement, parameters, **options)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        with patch.object(database, "once", once):
            yield seen
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def nodes_of(database: Database, statement: str, parameters: Any) -> list[tuple[str, str | None]]:
    """Every node of a statement's plan, with its index, from the top."""
    with database.transaction() as session:
        explained = session.connection().exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
        return list(_nodes(explained.scalar_one()[0]["Plan"]))


def _nodes(node: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    yield node["Node Type"], node.get("Index Name")
    for child in node.get("Plans", ()):
        yield from _nodes(child)
