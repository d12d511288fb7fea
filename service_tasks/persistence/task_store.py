"""Tasks in PostgreSQL, for the API and commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import psycopg2
from sqlalchemy.exc import IntegrityError

from service_tasks.domain.task import State
from service_tasks.errors import TaskStateConflict, UniqueKeyTaken, UserDeleted
from service_tasks.persistence.insertion import (
    LARGEST_INSERT,
    PARAMETER_TYPES,
    batches,
    insert_many,
    new_row,
    new_rows,
    nullable_array,
    optional_text,
)
from service_tasks.persistence.statements import StoreStatements
from service_tasks.persistence.task_ends import TaskEnds
from service_tasks.use_cases.tasks import (
    MOST_CONTROLS,
    Control,
    NewTask,
    Obstacle,
    PastExecuteAt,
    Selection,
    StoredTask,
    TaskStanding,
)
from servicekit.database.engine import Database
from servicekit.events import tombstones

#: bytes of JSON above which a list leaves a value out
LARGEST_IN_LIST = 16 * 1024


class TaskStore:
    """Implements `use_cases.tasks.TaskRepository`. Every method is one transaction, and raises `DatabaseUnavailable` if
    the database is away."""

    def __init__(self, database: Database, ends: TaskEnds | None = None) -> None:
        """`ends` writes the events of tasks that are cancelled; by default none."""
        self._statements = StoreStatements(database, "queries.sql")
        self._statements.prepare("insert", **PARAMETER_TYPES)
        self._statements.prepare("get", id="uuid")
        self._statements.prepare("get_status", id="uuid")
        self._ends = ends or TaskEnds()

    def add(self, task: NewTask, announcement: str | None = None) -> StoredTask | None:
        before, keeping = ("", {}) if task.user_id is None else (tombstones.KEEP, tombstones.kept(task.user_id))
        row = new_row(task, announcement)
        ((*columns, reason, _),) = self._statements.once("insert", before=before, **keeping, **row)
        if reason == "past":
            raise PastExecuteAt
        if reason == "user_deleted":
            raise UserDeleted
        return None if columns[0] is None else _stored(columns)

    def add_many(self, tasks: Sequence[NewTask]) -> Mapping[UUID, UUID]:
        if len(tasks) <= LARGEST_INSERT and all(_is_plain(task) for task in tasks):
            (part, *others) = batches(tasks)
            if not others:
                # Nothing to check, before or after.
                self._statements.once("insert_many", **new_rows(part))
                return {}
        with self._statements.transaction() as session:
            if any(task.execute_at is not None for task in tasks):
                times = nullable_array(task.execute_at for task in tasks)
                index = self._statements.run(session, "first_past", times=times).scalar()
                if index is not None:
                    raise PastExecuteAt(index)
            users = {task.user_id for task in tasks if task.user_id is not None}
            gone = tombstones.buried(session, users)
            if gone:
                raise UserDeleted(f"tasks.{next(i for i, task in enumerate(tasks) if task.user_id in gone)}.user_id")
            return insert_many(session, tasks)

    def by_unique_key(self, unique_key: str, *, answers: tuple[str, bytes] | None = None) -> StoredTask | None:
        if answers is None:
            return _one(self._statements.once("get_live", unique_key=unique_key))
        key, request_hash = answers
        rows = self._statements.once(
            "answer", unique_key=unique_key, idempotency_key=key, request_hash=psycopg2.Binary(request_hash)
        )
        for (task_id,) in rows:
            return self.get(task_id)
        return None

    def controls(self) -> Mapping[str, Control]:
        return {name: Control(*limits) for name, *limits in self._statements.once("controls")}

    def control(self, task_type: str, changes: Mapping[str, Any]) -> bool:
        unset: dict[str, Any] = {"paused": None, "max_running": None, "max_running_per_user": None}
        values = {"name": task_type, **unset, **changes, "named": list(changes), "most": MOST_CONTROLS}
        with self._statements.transaction() as session:
            is_set = bool(self._statements.rows(session, "control", **values))
            self._statements.run(session, "forget_empty_control", name=task_type)
        return is_set

    def forget_control(self, task_type: str) -> None:
        self._statements.once("forget_control", name=task_type)

    def has_seen(self, task_type: str) -> bool:
        return bool(self._statements.once("seen_type", name=task_type))

    def by_key(self, idempotency_key: str) -> tuple[StoredTask, bytes] | None:
        for *columns, request_hash in self._statements.once("get_by_key", idempotency_key=idempotency_key):
            return _stored(columns), bytes(request_hash)
        return None

    def get(self, task_id: UUID) -> StoredTask | None:
        return _one(self._statements.once("get", id=str(task_id)))

    def search(self, selection: Selection) -> tuple[list[StoredTask], int]:
        which: dict[str, Any] = {
            "states": None if selection.states is None else [state.value for state in selection.states],
            "task_type": selection.task_type,
            "user_id": optional_text(selection.user_id),
        }
        rows = self._statements.once(
            "list",
            **which,
            after=optional_text(selection.after),
            limit=selection.limit,
            offset=selection.offset,
            largest=LARGEST_IN_LIST,
        )
        total: int = rows[0][-1]
        return [_stored(columns) for *columns, _ in rows if columns[0] is not None], total

    def status(self, task_id: UUID) -> TaskStanding | None:
        for id, state, created_at, duration in self._statements.once("get_status", id=str(task_id)):
            return TaskStanding(id, State(state), created_at, duration)
        return None

    def cancel(self, task_id: UUID) -> StoredTask | None:
        with self._statements.transaction() as session:
            if not self._ends.cancel(session, [task_id]):
                return None
            return _one(self._statements.rows(session, "get", id=str(task_id)))

    def purge(self, task_id: UUID) -> StoredTask | None:
        with self._statements.transaction() as session:
            self._ends.cancel(session, [task_id])
            task = _one(self._statements.rows(session, "purge", id=str(task_id)))
            if task is not None:
                self._statements.run(session, "forget_answers", id=str(task_id))
        return task

    def retry(self, task_id: UUID) -> StoredTask | None:
        try:
            with self._statements.transaction() as session:
                task = _one(self._statements.rows(session, "retry", id=str(task_id)))
                if task is not None and task.user_id is not None and tombstones.buried(session, {task.user_id}):
                    raise TaskStateConflict("The user of this task was deleted, so it cannot be run again.")
        except IntegrityError as exc:
            if violates_unique_key(exc):
                raise UniqueKeyTaken from exc
            raise
        return task

    def live_types(self) -> Mapping[str, int]:
        return dict(self._statements.once("live_types"))

    def announce(self, announcement: str) -> None:
        """Announce to all listening workers. A commit with NOTIFY takes a server-wide lock: use it rarely."""
        self._statements.once("announce", announcement=announcement)


def violates_unique_key(exc: IntegrityError) -> bool:
    """Whether a live task has the unique key."""
    return getattr(getattr(exc.orig, "diag", None), "constraint_name", None) == "uq_tasks_unique_key"


def _is_plain(task: NewTask) -> bool:
    return task.execute_at is None and task.user_id is None and task.unique_key is None


def _stored(row: Sequence[Any]) -> StoredTask:
    id, state, *others, obstacle = row
    return StoredTask._make((id, State(state), *others, None if obstacle is None else Obstacle(obstacle)))


def _one(rows: Sequence[Sequence[Any]]) -> StoredTask | None:
    """The task of the one row, if there is one."""
    return _stored(rows[0]) if rows else None
