"""The leader's lease and the removal of old rows, in PostgreSQL."""

from __future__ import annotations

from uuid import UUID

from service_tasks.engine.ports import Pruned, Retention, Term
from service_tasks.persistence.statements import StoreStatements
from servicekit.database.engine import Database
from servicekit.wire.errors import DatabaseLocked

_DUTY = "maintenance"


class MaintenanceStore:
    """Implements `engine.ports.LeaderStore` and `engine.ports.PruneStore`."""

    def __init__(self, database: Database) -> None:
        self._statements = StoreStatements(database, "maintenance.sql")

    def lead(self, worker_id: UUID, lease_seconds: float) -> Term:
        statements = self._statements
        try:
            with statements.transaction() as session:
                # Read first, so that a waiting worker does not write at every attempt.
                leader = statements.row(session, "leader", duty=_DUTY, lease_seconds=lease_seconds)
                if leader is not None and leader.worker_id != worker_id and leader.seconds_left > 0:
                    return Term(leads=False, ends_in_seconds=leader.seconds_left)
                taken = statements.row(
                    session, "lead", duty=_DUTY, worker_id=str(worker_id), lease_seconds=lease_seconds
                )
        except DatabaseLocked:
            # Another session keeps the row locked. All may lead then, which is harmless; having no leader is not.
            return Term(leads=True, ends_in_seconds=lease_seconds)
        return Term(leads=taken is not None, ends_in_seconds=lease_seconds)

    def resign(self, worker_id: UUID) -> None:
        with self._statements.transaction() as session:
            self._statements.run(session, "resign", duty=_DUTY, worker_id=str(worker_id))

    def prune_tasks(self, retention: Retention, *, after: UUID | None, limit: int) -> Pruned:
        shortest = retention.shortest
        if shortest is None:
            return Pruned(removed=0, seen=0, last=None)
        with self._statements.transaction() as session:
            row = self._statements.row(
                session,
                "prune_tasks",
                after=None if after is None else str(after),
                shortest=shortest,
                limit=limit,
                completed=retention.completed_seconds,
                failed=retention.failed_seconds,
                cancelled=retention.cancelled_seconds,
            )
        return Pruned(**row._mapping)

    def prune_ticks(self, *, keep_seconds: float, limit: int) -> int:
        with self._statements.transaction() as session:
            return self._statements.run(session, "prune_ticks", keep=keep_seconds, limit=limit).rowcount

    def prune_minutes(self, *, keep_seconds: float, limit: int) -> int:
        with self._statements.transaction() as session:
            return self._statements.run(session, "prune_minutes", keep=keep_seconds, limit=limit).rowcount

    def prune_messages(self, *, keep_seconds: float, limit: int) -> int:
        with self._statements.transaction() as session:
            return self._statements.run(session, "prune_messages", keep=keep_seconds, limit=limit).rowcount

    def prune_rejections(self, *, most: int, limit: int) -> int:
        with self._statements.transaction() as session:
            return self._statements.run(session, "prune_rejections", most=most, limit=limit).rowcount
