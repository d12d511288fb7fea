"""Many tasks at once, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from service_tasks.domain.callback import CALLBACK_TYPE
from service_tasks.domain.task import Lease, State
from service_tasks.engine.ports import cancel_announcement
from service_tasks.persistence.queries import load_queries
from service_tasks.persistence.statements import Statements
from service_tasks.persistence.task_outbox import TaskOutbox
from service_tasks.persistence.task_store import TaskStore
from service_tasks.use_cases.bulk import Choice, Chosen, Retried
from servicekit.database.engine import Database
from servicekit.events import tombstones


class BulkStore:
    """Implements `use_cases.bulk.BulkRepository`."""

    def __init__(self, database: Database, tasks: TaskStore, events: TaskOutbox | None = None) -> None:
        """`tasks` is on the same database: an end and its callback are one transaction. `events` writes what others are
        told of tasks that end; by default nothing."""
        self._statements = Statements(database, "bulk.sql")
        self._tasks = tasks
        self._by_id = load_queries()["by_id"]
        self._events = events or TaskOutbox()

    def choose(self, choice: Choice) -> list[Chosen]:
        with self._statements.transaction() as session:
            rows = self._statements.rows(
                session,
                "choose",
                states=[state.value for state in choice.states],
                task_type=choice.task_type,
                callback=CALLBACK_TYPE,
                user_id=_text(choice.user_id),
                ids=None if choice.ids is None else [str(item) for item in choice.ids],
                created_from=choice.created_from,
                created_before=choice.created_before,
                ended_from=choice.ended_from,
                ended_before=choice.ended_before,
                after=_text(choice.after),
                limit=choice.limit,
            )
        return [Chosen(*row) for row in rows]

    def cancel(self, ids: Collection[UUID]) -> int:
        with self._statements.transaction() as session:
            session.connection().exec_driver_sql(self._by_id)
            rows = self._statements.rows(session, "cancel_many", ids=[str(item) for item in ids])
            words = [cancel_announcement(Lease(row[0], row[1])) for row in rows if row[2] is not None]
            if words:
                self._statements.run(session, "tell_workers", announcements=words)
            self._events.ended(session, State.CANCELLED, [row[0] for row in rows])
            self._tasks.call_back(session, [row[0] for row in rows if row[3]])
        return len(rows)

    def retry(self, chosen: Sequence[Chosen], states: Collection[State]) -> Retried:
        total = self._retry([item for item in chosen if item.unique_key is None], states)
        for item in chosen:
            # One at a time: whether its key is free is known only when it is written, and two keys held at once by
            # each of two transactions would be a circle.
            if item.unique_key is not None:
                try:
                    done = self._retry([item], states)
                except IntegrityError as exc:
                    if _constraint_of(exc) != "uq_tasks_unique_key":
                        raise
                    done = Retried(unique_key_taken=1)
                total.add(done)
        return total

    def _retry(self, chosen: Sequence[Chosen], states: Collection[State]) -> Retried:
        if not chosen:
            return Retried()
        with self._statements.transaction() as session:
            users = {item.user_id for item in chosen if item.user_id is not None}
            gone = tombstones.buried(session, users)
            left = [str(item.id) for item in chosen if item.user_id not in gone]
            session.connection().exec_driver_sql(self._by_id)
            words = [state.value for state in states]
            retried = self._statements.run(session, "retry_many", ids=left, states=words).rowcount
        return Retried(retried=retried, changed=len(left) - retried, user_deleted=len(chosen) - len(left))


def _constraint_of(exc: IntegrityError) -> Any:
    return getattr(getattr(exc.orig, "diag", None), "constraint_name", None)


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
