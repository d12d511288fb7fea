"""Stores new tasks inside the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

import psycopg2
from sqlalchemy.orm import Session

from service_tasks.errors import UniqueKeyTaken
from service_tasks.persistence.statements import Statements
from service_tasks.use_cases.tasks import NewTask
from servicekit.identity.reach import Reach

#: the most tasks of one statement, and characters of their payloads, which the driver copies several times
LARGEST_INSERT = 1000
LARGEST_TEXT = 1024 * 1024

#: of the parameters of `new_row`, in PostgreSQL
PARAMETER_TYPES: Mapping[str, str] = {
    "id": "uuid",
    "task_type": "text",
    "title": "text",
    "user_id": "uuid",
    "payload": "jsonb",
    "priority": "smallint",
    "max_attempts": "smallint",
    "timeout_seconds": "float8",
    "execute_at": "timestamptz",
    "idempotency_key": "text",
    "request_hash": "bytea",
    "unique_key": "text",
    "callback_url": "text",
    "announcement": "text",
}

_callback_url_of = attrgetter("callback_url")


def new_row(task: NewTask, announcement: str | None) -> dict[str, Any]:
    """The parameters of the statements that store one task."""
    return {
        **task._asdict(),
        "announcement": announcement,
        "id": str(task.id),
        "user_id": optional_text(task.user_id),
        "request_hash": None if task.request_hash is None else psycopg2.Binary(task.request_hash),
    }


def insert_many(session: Session, tasks: Sequence[NewTask], *, reach: Reach) -> Mapping[UUID, UUID]:
    """Store tasks; return, for those whose unique key is taken, the live task that has it. Raises `UniqueKeyTaken` if
    that is beyond reach.

    Does not check idempotency keys, nor whether `execute_at` has passed. The caller must have checked the users with
    `tombstones.buried` in the same transaction.
    """
    statements = Statements("queries.sql")
    # Sorted by key, so that two batches with the same keys wait for each other but cannot deadlock.
    ordered = sorted(tasks, key=_unique_key_of) if any(task.unique_key for task in tasks) else tasks
    taken: dict[UUID, UUID] = {}
    while ordered:
        for part in batches(ordered):
            statements.run(session, "insert_many", **new_rows(part))
        keyed = [task for task in ordered if task.unique_key is not None]
        alive: dict[str | None, UUID] = {}
        if keyed:
            rows = statements.rows(
                session,
                "live_keys",
                keys=[task.unique_key for task in keyed],
                reach=optional_text(reach.owner),
            )
            if not all(row.within_reach for row in rows):
                raise UniqueKeyTaken
            alive = {row.unique_key: row.id for row in rows}
        taken.update((task.id, alive[key]) for task in keyed if (key := task.unique_key) in alive)
        # If the task with the key has ended since, the key is free again.
        ordered = [task for task in keyed if task.unique_key not in alive]
    return {mine: theirs for mine, theirs in taken.items() if mine != theirs}


def batches(tasks: Sequence[NewTask]) -> Iterator[Sequence[NewTask]]:
    """Split by number and by characters of payload; a task with more than that is a batch of its own."""
    start, room = 0, LARGEST_TEXT
    for end, task in enumerate(tasks):
        room -= len(task.payload)
        if end > start and (end - start == LARGEST_INSERT or room < 0):
            yield tasks[start:end]
            start, room = end, LARGEST_TEXT - len(task.payload)
    yield tasks[start:]


def new_rows(tasks: Sequence[NewTask]) -> dict[str, str]:
    """The parameters of `insert_many`'s statement."""
    return {
        "ids": array([str(task.id) for task in tasks]),
        "types": _texts([task.task_type for task in tasks]),
        "titles": _texts([task.title for task in tasks]),
        "users": nullable_array(task.user_id for task in tasks),
        "payloads": "[" + ",".join([task.payload for task in tasks]) + "]",
        "priorities": array([str(task.priority) for task in tasks]),
        "attempts": array([str(task.max_attempts) for task in tasks]),
        "timeouts": nullable_array(task.timeout_seconds for task in tasks),
        "times": nullable_array(task.execute_at for task in tasks),
        "keys": _texts([task.unique_key for task in tasks]),
        "callbacks": _texts([task.callback_url for task in tasks] if any(map(_callback_url_of, tasks)) else []),
    }


def array(plain: Iterable[str]) -> str:
    """An array literal of texts without quotes, commas or backslashes; the driver would write it value by value."""
    return "{" + ",".join(plain) + "}"


def nullable_array(values: Iterable[UUID | float | datetime | None]) -> str:
    """The same with nulls; quoted, since times contain a space."""
    return array(["NULL" if value is None else f'"{value}"' for value in values])


def optional_text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


def _unique_key_of(task: NewTask) -> str:
    return task.unique_key or ""


def _texts(values: Sequence[str | None]) -> str:
    return json.dumps(values, ensure_ascii=False)
