"""The named statements of this folder's files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from servicekit.database.queries import filled_in, read_statements


@cache
def load_queries(file: str = "queries.sql") -> Mapping[str, str]:
    """The statements of a file by name, with fragments filled in."""
    raw = read_statements("service_tasks.persistence", file)
    return {name: filled_in(body, raw) for name, body in raw.items()}
