"""The event streams' query."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from service_tasks.domain.task import State
from service_tasks.domain.watched import Watch, WatchedTask
from service_tasks.persistence.insertion import optional_text
from service_tasks.persistence.statements import StoreStatements
from service_tasks.persistence.task_store import LARGEST_IN_LIST
from servicekit.database.engine import Database
from servicekit.identity.reach import Reach


class WatchStore:
    """Raises `DatabaseUnavailable` or `DatabaseTooSlow`."""

    def __init__(self, database: Database) -> None:
        self._statements = StoreStatements(database, "queries.sql")

    def changed(self, seen: Mapping[Watch, datetime | None]) -> dict[Watch, WatchedTask | None]:
        """The tasks whose `updated_at` differs from the one given; None for a missing one. One statement."""
        rows = self._statements.once(
            "watched",
            ids=[str(watch.task_id) for watch in seen],
            reach=[optional_text(watch.reach.owner) for watch in seen],
            seen=list(seen.values()),
            largest=LARGEST_IN_LIST,
        )
        return {
            Watch(task_id, Reach(owner)): None if state is None else WatchedTask(task_id, State(state), *others)
            for task_id, owner, state, *others in rows
        }
