"""Messages in PostgreSQL: the ids seen, rejected messages, and the tasks of the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg2
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from service_tasks.errors import UserDeleted
from service_tasks.persistence.insertion import insert_many, optional_text
from service_tasks.persistence.statements import StoreStatements
from service_tasks.use_cases.messages import (
    LISTED_BYTES,
    PAST_EXECUTE_AT,
    Candidate,
    CannotStore,
    Reject,
    RejectedMessage,
    Rejection,
    Stored,
    StoredRejection,
)
from service_tasks.use_cases.tasks import NewTask, PastExecuteAt
from servicekit.database.engine import Database
from servicekit.events import tombstones
from servicekit.identity.reach import Reach
from servicekit.wire.errors import AppError, FieldError


class MessageStore:
    """Implements `use_cases.messages.MessageRepository`."""

    def __init__(self, database: Database) -> None:
        self._statements = StoreStatements(database, "messages.sql")

    def store(self, candidates: Sequence[Candidate], reject: Reject) -> Stored:
        try:
            with self._statements.transaction() as session:
                self._statements.run(session, "briefly")
                return self._store(session, candidates, reject)
        except (DataError, IntegrityError, TypeError, ValueError) as exc:
            # The driver raises the last two before sending anything.
            raise CannotStore(type(exc).__name__) from exc

    def _store(self, session: Session, candidates: Sequence[Candidate], reject: Reject) -> Stored:
        # Before their ids are noted: a transaction that holds a message's id must not wait for a user's.
        candidates = self._judged(session, candidates, reject)
        known = self._known(session, candidates)
        tasks: list[NewTask] = []
        rejected: list[RejectedMessage] = []
        for candidate in candidates:
            verdict = candidate.verdict
            if verdict.id in known:
                continue
            if isinstance(verdict, NewTask):
                tasks.append(verdict)
            else:
                self._reject(session, verdict)
                rejected.append(RejectedMessage(candidate.message.tag, verdict.id, verdict.reason))
        taken = insert_many(session, tasks, reach=Reach.all())
        if taken:
            for candidate in candidates:
                if candidate.message.message_id is not None and candidate.verdict.id in taken:
                    self._point_to(session, taken[candidate.verdict.id], candidate.message.source, _key(candidate))
        return Stored([task for task in tasks if task.id not in taken], rejected)

    def _judged(self, session: Session, candidates: Sequence[Candidate], reject: Reject) -> Sequence[Candidate]:
        """The candidates, with rejections for tasks that only the database can tell to be invalid."""
        tasks = [one.verdict for one in candidates if isinstance(one.verdict, NewTask)]
        gone = tombstones.buried(session, {task.user_id for task in tasks if task.user_id is not None})
        later = any(task.execute_at is not None for task in tasks)
        if not gone and not later:
            return candidates
        now = self._statements.run(session, "clock").scalar_one() if later else None

        def wrong(task: NewTask) -> AppError | None:
            if task.user_id in gone:
                return UserDeleted()
            if now is not None and task.execute_at is not None and task.execute_at <= now:
                return PAST_EXECUTE_AT
            return None

        return [
            Candidate(one.message, reject(one.message, error))
            if isinstance(one.verdict, NewTask) and (error := wrong(one.verdict))
            else one
            for one in candidates
        ]

    def _known(self, session: Session, candidates: Sequence[Candidate]) -> set[UUID]:
        """The verdicts of messages that were handled before."""
        named = [
            (one.message.source, _key(one), one.verdict.id) for one in candidates if one.message.message_id is not None
        ]
        if not named:
            return set()
        rows = self._statements.rows(
            session,
            "note",
            sources=[source for source, _, _ in named],
            message_ids=[key for _, key, _ in named],
            task_ids=[str(verdict_id) for _, _, verdict_id in named],
        )
        return {verdict_id for _, _, verdict_id in named} - {row.task_id for row in rows}

    def _reject(self, session: Session, rejection: Rejection) -> None:
        self._statements.run(
            session,
            "reject",
            id=str(rejection.id),
            source=rejection.source,
            message_id=rejection.message_id,
            reason=rejection.reason,
            details=json.dumps([{"field": one.field, "message": one.message} for one in rejection.details]),
            body=psycopg2.Binary(rejection.body),
            size=rejection.size,
        )

    def search(self, *, after: UUID | None, limit: int, offset: int) -> tuple[list[StoredRejection], int]:
        statements = self._statements
        with statements.transaction() as session:
            # One snapshot for the page and its total.
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            rows = statements.rows(
                session, "list", after=optional_text(after), limit=limit, offset=offset, shown=LISTED_BYTES
            )
            total: int = statements.run(session, "count").scalar_one()
        return [_stored(row) for row in rows], total

    def get(self, rejection_id: UUID) -> StoredRejection | None:
        row = self._statements.once_row("get", id=str(rejection_id))
        return None if row is None else _stored(row)

    def _point_to(self, session: Session, task_id: UUID, source: str, message_id: str | None) -> None:
        self._statements.run(session, "point_to", task_id=str(task_id), source=source, message_id=message_id)

    def accept(self, rejection_id: UUID, task: NewTask) -> UUID | None:
        statements = self._statements
        with statements.transaction() as session:
            if task.user_id is not None and tombstones.buried(session, {task.user_id}):
                raise UserDeleted
            row = statements.row(session, "forget", id=str(rejection_id))
            if row is None:
                return None
            if task.execute_at is not None and task.execute_at <= statements.run(session, "clock").scalar_one():
                raise PastExecuteAt
            task_id = insert_many(session, [task], reach=Reach.all()).get(task.id, task.id)
            self._point_to(session, task_id, row.source, row.message_id)
        return task_id

    def forget(self, rejection_id: UUID) -> StoredRejection | None:
        row = self._statements.once_row("forget", id=str(rejection_id))
        return None if row is None else _stored(row)


def _key(candidate: Candidate) -> str:
    """The message's id as it is stored: valid in a task, made valid in a rejection."""
    verdict = candidate.verdict
    message_id = verdict.message_id if isinstance(verdict, Rejection) else candidate.message.message_id
    assert isinstance(message_id, str)
    return message_id


def _stored(row: Any) -> StoredRejection:
    rejection = Rejection(
        id=row.id,
        source=row.source,
        message_id=row.message_id,
        reason=row.reason,
        details=tuple(FieldError(one["field"], one["message"]) for one in json.loads(row.details)),
        body=bytes(row.body),
        size=row.size,
    )
    return StoredRejection(rejection, row.received_at)
