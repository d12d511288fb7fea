"""The event streams' query."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from service_tasks.domain.task import State
from service_tasks.domain.watched import WatchedTask
from service_tasks.persistence.statements import StoreStatements
from service_tasks.persistence.task_store import LARGEST_IN_LIST
from servicekit.database.engine import Database


class WatchStore:
    """Raises `DatabaseUnavailable` or `DatabaseTooSlow`."""

    def __init__(self, database: Database) -> None:
        self._statements = StoreStatements(database, "queries.sql")

    def changed(self, seen: Mapping[UUID, datetime | None]) -> dict[UUID, WatchedTask | None]:
        """The tasks whose `updated_at` differs from the one given; None for a missing one. One statement."""
        rows = self._statements.once(
            "watched", ids=[str(task_id) for task_id in seen], seen=list(seen.values()), largest=LARGEST_IN_LIST
        )
        return {
            task_id: None if state is None else WatchedTask(task_id, State(state), *others)
            for task_id, state, *others in rows
        }
