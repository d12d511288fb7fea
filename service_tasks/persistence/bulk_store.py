"""Many tasks at once, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from service_tasks.domain.callback import CALLBACK_TYPE
from service_tasks.domain.task import RETRYABLE_STATES, State
from service_tasks.persistence.insertion import optional_text
from service_tasks.persistence.statements import StoreStatements
from service_tasks.persistence.task_ends import TaskEnds
from service_tasks.persistence.task_store import violates_unique_key
from service_tasks.use_cases.bulk import Choice, Chosen, Retried
from servicekit.database.engine import Database
from servicekit.events import tombstones
from servicekit.identity.reach import Reach


class BulkStore:
    """Implements `use_cases.bulk.BulkRepository`."""

    def __init__(self, database: Database, ends: TaskEnds | None = None) -> None:
        """`ends` writes the events of tasks that are cancelled; by default none."""
        self._statements = StoreStatements(database, "queries.sql")
        self._ends = ends or TaskEnds()

    def choose(self, choice: Choice, *, reach: Reach) -> tuple[list[Chosen], datetime]:
        with self._statements.transaction() as session:
            (as_of,) = self._statements.row(session, "clock")
            if choice.dry:
                self._statements.run(session, "in_index_order")
            elif RETRYABLE_STATES.issuperset(choice.states):
                self._statements.run(session, "oldest_first")
            rows = self._statements.rows(
                session,
                "choose_any" if choice.dry else "choose",
                reach=optional_text(reach.owner),
                states=[state.value for state in choice.states],
                task_type=choice.task_type,
                callback=CALLBACK_TYPE,
                user_id=optional_text(choice.user_id),
                ids=None if choice.ids is None else [str(item) for item in choice.ids],
                created_from=choice.created_from,
                created_before=choice.created_before,
                ended_from=choice.ended_from,
                ended_before=choice.ended_before,
                after=optional_text(choice.after),
                limit=choice.limit,
            )
        return [Chosen(*row) for row in rows], as_of

    def cancel(self, ids: Collection[UUID], *, reach: Reach) -> int:
        with self._statements.transaction() as session:
            self._statements.run(session, "by_id")
            return self._ends.cancel(session, ids, reach=reach)

    def retry(self, chosen: Sequence[Chosen], states: Collection[State], *, reach: Reach) -> Retried:
        total = self._retry([item for item in chosen if item.unique_key is None], states, reach)
        for item in chosen:
            # One at a time: only the write shows whether its key is free, and two transactions that hold two keys
            # each could deadlock.
            if item.unique_key is not None:
                try:
                    done = self._retry([item], states, reach)
                except IntegrityError as exc:
                    if not violates_unique_key(exc):
                        raise
                    done = Retried(unique_key_taken=1)
                total.add(done)
        return total

    def _retry(self, chosen: Sequence[Chosen], states: Collection[State], reach: Reach) -> Retried:
        if not chosen:
            return Retried()
        with self._statements.transaction() as session:
            users = {item.user_id for item in chosen if item.user_id is not None}
            gone = tombstones.buried(session, users)
            left = [str(item.id) for item in chosen if item.user_id not in gone]
            self._statements.run(session, "by_id")
            retried = self._statements.run(
                session,
                "retry_many",
                ids=left,
                states=[state.value for state in states],
                reach=optional_text(reach.owner),
            ).rowcount
        return Retried(retried=retried, changed=len(left) - retried, user_deleted=len(chosen) - len(left))
