"""Tasks in PostgreSQL, for the API and commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg2
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service_tasks.domain.task import LIVE_STATES, MAX_ERROR_CHARACTERS, Obstacle, State
from service_tasks.engine.ports import READY
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
    NO_TASKS,
    Control,
    NewTask,
    PastExecuteAt,
    Selection,
    StoredTask,
    TasksFound,
    TaskStanding,
)
from servicekit.database.engine import Database
from servicekit.events import tombstones
from servicekit.identity.reach import Reach
from servicekit.web.paging import MOST, too_far

#: bytes of JSON above which a list leaves a value out
LARGEST_IN_LIST = 16 * 1024
#: of an error in a light list
LIGHT_ERROR_CHARACTERS = 200
#: up to so many tasks that have not ended are found by their own indexes
FEW_LIVE = 2_000
#: states with an index in the order of lists
_INDEXED = frozenset({State.FAILED, State.CANCELLED})


class TaskStore:
    """Implements `use_cases.tasks.TaskRepository`. Every method is one transaction, and raises `DatabaseUnavailable` if
    the database is away."""

    def __init__(self, database: Database, ends: TaskEnds | None = None) -> None:
        """`ends` writes the events of tasks that are cancelled; by default none."""
        self._statements = StoreStatements(database, "queries.sql")
        self._statements.prepare("insert", **PARAMETER_TYPES)
        self._statements.prepare("insert_plain", **PARAMETER_TYPES)
        self._statements.prepare("get", id="uuid", reach="uuid")
        self._statements.prepare("get_status", id="uuid", reach="uuid")
        self._ends = ends or TaskEnds()

    def add(self, task: NewTask, announcement: str | None = None) -> StoredTask | None:
        before, keeping = ("", {}) if task.user_id is None else (tombstones.KEEP, tombstones.kept(task.user_id))
        row = new_row(task, announcement)
        insert = "insert_plain" if _is_plain(task) and task.idempotency_key is None else "insert"
        ((reason, *made, _),) = self._statements.once(insert, before=before, **keeping, **row)
        if reason == "past":
            raise PastExecuteAt
        if reason == "user_deleted":
            raise UserDeleted
        return _made(task, *made)

    def add_many(self, tasks: Sequence[NewTask], *, reach: Reach) -> Mapping[UUID, UUID]:
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
            return insert_many(session, tasks, reach=reach)

    def add_within(self, session: Session, task: NewTask) -> None:
        insert_many(session, [task], reach=Reach.all())
        self._statements.run(session, "announce", announcement=READY)

    def by_unique_key(
        self, unique_key: str, *, answers: tuple[str, bytes] | None = None, reach: Reach
    ) -> StoredTask | None:
        of_caller: dict[str, Any] = {"unique_key": unique_key, "reach": optional_text(reach.owner)}
        for *columns, within_reach in self._statements.once("get_live", **of_caller):
            if not within_reach:
                raise UniqueKeyTaken
            if answers is None:
                return _stored(columns)
        if answers is None:
            return None
        key, request_hash = answers
        rows = self._statements.once(
            "answer", idempotency_key=key, request_hash=psycopg2.Binary(request_hash), **of_caller
        )
        for (task_id,) in rows:
            return self.get(task_id, reach=reach)
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

    def by_key(self, idempotency_key: str, *, reach: Reach) -> tuple[StoredTask, bytes] | None:
        rows = self._statements.once("get_by_key", idempotency_key=idempotency_key, reach=optional_text(reach.owner))
        for *columns, request_hash in rows:
            return _stored(columns), bytes(request_hash)
        return None

    def get(self, task_id: UUID, *, reach: Reach) -> StoredTask | None:
        return _one(self._statements.once("get", **_one_of(task_id, reach)))

    def search(self, selection: Selection, *, waits: str, reach: Reach) -> TasksFound:
        owner, states = selection.user_id, selection.states
        if reach.owner is not None:
            if owner not in (None, reach.owner):
                return NO_TASKS
            owner = reach.owner
        filtered = states is not None or selection.task_type is not None
        statement = "list_of_all" if owner is None else "list_of_owner"
        if owner is None and states is not None and len(states) == 1 and states[0] in _INDEXED:
            statement = "list_of_state"
        elif filtered:
            statement += "_that_match"
        look = selection.offset + (MOST + 1 if filtered else selection.limit + 1)
        values: dict[str, Any] = {
            "states": None if states is None else [state.value for state in states],
            "state": None if states is None else states[0].value,
            "task_type": selection.task_type,
            "reach": optional_text(owner),
            "after": optional_text(selection.after),
            "limit": selection.limit + 1,
            "offset": selection.offset,
            "look": look,
            "most": MOST,
            "few": FEW_LIVE,
            "largest": 0 if selection.light else LARGEST_IN_LIST,
            "error_characters": LIGHT_ERROR_CHARACTERS if selection.light else MAX_ERROR_CHARACTERS,
            "waits": waits,
        }
        if owner is None and states is not None and LIVE_STATES.issuperset(states):
            few = self._looked("list_of_live", values)
            if few.counted <= FEW_LIVE:
                return _page(few, selection, ends=True)
        found = self._looked(statement, values)
        return _page(found, selection, ends=found.looked < look)

    def _looked(self, statement: str, values: Mapping[str, Any]) -> _Looked:
        before = "" if statement.startswith("list_of_all") else self._statements["in_index_order"]
        return _Looked._make(self._statements.once(statement, before=before, **values)[0])

    def status(self, task_id: UUID, *, reach: Reach) -> TaskStanding | None:
        for id, state, created_at, duration in self._statements.once("get_status", **_one_of(task_id, reach)):
            return TaskStanding(id, State(state), created_at, duration)
        return None

    def cancel(self, task_id: UUID, *, reach: Reach) -> StoredTask | None:
        with self._statements.transaction() as session:
            if not self._ends.cancel(session, [task_id], reach=reach):
                return None
            return _one(self._statements.rows(session, "get", **_one_of(task_id, reach)))

    def purge(self, task_id: UUID, *, reach: Reach) -> StoredTask | None:
        with self._statements.transaction() as session:
            self._ends.cancel(session, [task_id], reach=reach)
            task = _one(self._statements.rows(session, "purge", **_one_of(task_id, reach)))
            if task is not None:
                self._statements.run(session, "forget_answers", id=str(task_id))
        return task

    def retry(self, task_id: UUID, *, reach: Reach) -> StoredTask | None:
        try:
            with self._statements.transaction() as session:
                task = _one(self._statements.rows(session, "retry", **_one_of(task_id, reach)))
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


def _one_of(task_id: UUID, reach: Reach) -> dict[str, Any]:
    return {"id": str(task_id), "reach": optional_text(reach.owner)}


def _is_plain(task: NewTask) -> bool:
    return task.execute_at is None and task.user_id is None and task.unique_key is None


class _Looked(NamedTuple):
    """The columns of `page` in queries.sql."""

    tasks: str
    last_shown: UUID | None
    found: int
    looked: int
    hits: int
    last_looked: UUID | None
    counted: int
    total: int


def _page(page: _Looked, selection: Selection, *, ends: bool) -> TasksFound:
    """`ends`: all tasks behind the place were looked at."""
    following = page.last_shown if page.found > selection.limit else None
    if following is None and not ends:
        if page.hits < selection.offset:
            raise too_far("this search goes no further:")
        following = page.last_looked
    return TasksFound(page.tasks, min(page.total, MOST), page.counted <= MOST, following)


def _stored(row: Sequence[Any]) -> StoredTask:
    id, state, *others, obstacle = row
    return StoredTask._make((id, State(state), *others, None if obstacle is None else Obstacle(obstacle)))


def _made(
    task: NewTask, made: bool, payload: str, execute_at: datetime, created_at: datetime, obstacle: str | None
) -> StoredTask | None:
    """A task that was just stored, if it was."""
    if not made:
        return None
    return StoredTask(
        id=task.id,
        state=State.READY if task.execute_at is None else State.SCHEDULED,
        task_type=task.task_type,
        title=task.title,
        user_id=task.user_id,
        payload=payload,
        priority=task.priority,
        attempts=0,
        max_attempts=task.max_attempts,
        timeout_seconds=task.timeout_seconds,
        execute_at=execute_at,
        progress_percent=0,
        progress_message=None,
        result=None,
        error=None,
        errors="[]",
        created_at=created_at,
        updated_at=created_at,
        started_at=None,
        completed_at=None,
        duration=None,
        unique_key=task.unique_key,
        callback_url=task.callback_url,
        callback_task_id=None,
        obstacle=None if obstacle is None else Obstacle(obstacle),
    )


def _one(rows: Sequence[Sequence[Any]]) -> StoredTask | None:
    """The task of the one row, if there is one."""
    return _stored(rows[0]) if rows else None
