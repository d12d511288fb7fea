"""What people can do with tasks; every door (HTTP now, others later) calls these."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from pydantic import ValidationError

from service_tasks.domain.task import (
    LIVE_STATES,
    MAX_PAYLOAD_BYTES,
    State,
    Status,
    states_of,
    status_of,
)
from service_tasks.engine.ports import READY, SCHEDULED
from service_tasks.engine.registry import Registry
from service_tasks.errors import (
    IdempotencyKeyReused,
    PayloadTooLarge,
    TaskNotFinished,
    TaskNotFound,
    TaskStateConflict,
)
from service_tasks.schemas import (
    AttemptErrorView,
    ProgressView,
    TaskCreate,
    TaskFilter,
    TaskPage,
    TaskResultView,
    TaskStatusView,
    TaskTypesView,
    TaskTypeView,
    TaskView,
)
from servicekit.envelope import dump
from servicekit.errors import FieldError, Invalid
from servicekit.ids import new_id
from servicekit.json_reader import read_json

NO_WORKER = "no worker runs this type"


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task about to be stored. `payload` is JSON text; `idempotency_key` and `request_hash` come together."""

    id: UUID
    task_type: str
    title: str | None
    user_id: UUID | None
    payload: str
    priority: int
    max_attempts: int
    timeout_seconds: float | None
    execute_at: datetime | None
    idempotency_key: str | None = None
    request_hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task as the table holds it; JSON values as text, None where a list leaves a large one out."""

    id: UUID
    state: State
    task_type: str
    title: str | None
    user_id: UUID | None
    payload: str | None
    priority: int
    attempts: int
    max_attempts: int
    timeout_seconds: float | None
    execute_at: datetime
    progress_percent: int
    progress_message: str | None
    result: str | None
    error: str | None
    errors: str
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    duration: float | None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tasks a list is about; None: whatever it is. `after` passes over that id and all newer ones."""

    states: tuple[State, ...] | None
    task_type: str | None
    user_id: UUID | None
    after: UUID | None
    limit: int
    offset: int


class PastExecuteAt(Exception):
    """execute_at is not in the future by the database's clock."""


class TaskRepository(Protocol):
    """What the use cases need from the database. Each method is one transaction."""

    def add(self, task: NewTask) -> StoredTask | None:
        """Store a task; None when its idempotency key is taken. Raises `PastExecuteAt`."""

    def by_key(self, idempotency_key: str) -> tuple[StoredTask, bytes] | None:
        """The task stored with this key, and the hash of its request."""

    def get(self, task_id: UUID) -> StoredTask | None: ...

    def search(self, selection: Selection) -> tuple[list[StoredTask], int]:
        """The selected part of the list, the newest first, and how many there are in all."""

    def cancel(self, task_id: UUID) -> StoredTask | None:
        """Cancel a live task and tell its worker; None when there is none alive."""

    def purge(self, task_id: UUID) -> StoredTask | None:
        """Remove a task whatever its state, telling its worker; gives it as it was, a live one as cancelled."""

    def retry(self, task_id: UUID) -> StoredTask | None:
        """Make a failed or cancelled task ready again; None when it is neither."""

    def live_types(self) -> Mapping[str, int]:
        """The types that living workers run, and how many workers run each."""


@dataclass(frozen=True, slots=True)
class Created:
    task: TaskView
    replayed: bool


class Tasks:
    """`announce` tells workers that something is ready or scheduled; it must neither block nor raise."""

    def __init__(
        self,
        repository: TaskRepository,
        registry: Registry,
        *,
        default_type: str,
        announce: Callable[[str], None],
    ) -> None:
        self._repository = repository
        self._registry = registry
        self._default_type = default_type
        self._announce = announce

    def create(self, body: TaskCreate, *, idempotency_key: str | None = None) -> Created:
        """Store a task, or give the one that the same key and request made before."""
        request_hash = None if idempotency_key is None else _hash_of(body)
        if idempotency_key is not None and request_hash is not None:
            # Asked first: the second try of a request must not fail because its execute_at has passed by now.
            known = self._replayed(idempotency_key, request_hash)
            if known is not None:
                return known
        new = self._new_task(body, idempotency_key, request_hash)
        while True:
            try:
                stored = self._repository.add(new)
            except PastExecuteAt as exc:
                raise Invalid.field("execute_at", "must be in the future") from exc
            if stored is not None:
                self._announce(READY if stored.state is State.READY else SCHEDULED)
                return Created(self._view(stored), replayed=False)
            assert idempotency_key is not None
            assert request_hash is not None
            known = self._replayed(idempotency_key, request_hash)
            if known is not None:
                return known
            # Its holder was purged in between: the key is free again.

    def prepare(self, body: TaskCreate) -> NewTask:
        """Check a task that somebody else is going to store: `Invalid`, `PayloadTooLarge`."""
        return self._new_task(body, None, None)

    def get(self, task_id: UUID) -> TaskView:
        return self._view(self._stored(task_id))

    def search(self, query: TaskFilter, *, user_id: UUID | None = None) -> TaskPage:
        selection = Selection(
            states=None if query.status is None else states_of(Status(query.status)),
            task_type=query.task_type,
            user_id=user_id,
            after=query.after,
            limit=query.limit + 1,
            offset=query.offset,
        )
        found, total = self._repository.search(selection)
        page = found[: query.limit]
        return TaskPage(
            tasks=self._views(page),
            total=total,
            limit=query.limit,
            offset=query.offset,
            next=page[-1].id if len(found) > len(page) else None,
        )

    def status(self, task_id: UUID) -> TaskStatusView:
        return TaskStatusView.of(self._view(self._stored(task_id)))

    def result(self, task_id: UUID) -> TaskResultView:
        """Of an ended task; a failed or cancelled one has no result but says why."""
        task = self._stored(task_id)
        if task.completed_at is None:
            raise TaskNotFinished(f"The task has no result yet: it is {status_of(task.state)}.")
        return TaskResultView.of(self._view(task))

    def cancel(self, task_id: UUID) -> TaskView:
        task = self._repository.cancel(task_id)
        if task is None:
            raise TaskNotFound("There is no task with this id, or it has ended already.")
        return self._view(task)

    def purge(self, task_id: UUID) -> TaskView:
        task = self._repository.purge(task_id)
        if task is None:
            raise TaskNotFound
        return self._view(task)

    def retry(self, task_id: UUID) -> TaskView:
        task = self._repository.retry(task_id)
        if task is None:
            status = status_of(self._stored(task_id).state)
            raise TaskStateConflict(f"The task is {status}; only a failed or cancelled one can be run again.")
        self._announce(READY)
        return self._view(task)

    def types(self) -> TaskTypesView:
        live = self._repository.live_types()
        views = [
            TaskTypeView(
                name=item.name,
                description=item.description,
                payload_schema=item.payload_schema(),
                timeout=item.timeout_seconds,
                workers=live.get(item.name, 0),
            )
            for item in self._registry
        ]
        views += [
            TaskTypeView(name=name, description="", payload_schema=None, timeout=None, workers=workers)
            for name, workers in live.items()
            if self._registry.get(name) is None
        ]
        views.sort(key=lambda view: view.name)
        return TaskTypesView(task_types=views, default=self._default_type, total=len(views))

    def _stored(self, task_id: UUID) -> StoredTask:
        task = self._repository.get(task_id)
        if task is None:
            raise TaskNotFound
        return task

    def _replayed(self, idempotency_key: str, request_hash: bytes) -> Created | None:
        known = self._repository.by_key(idempotency_key)
        if known is None:
            return None
        task, known_hash = known
        if known_hash != request_hash:
            raise IdempotencyKeyReused
        return Created(self._view(task), replayed=True)

    def _new_task(self, body: TaskCreate, idempotency_key: str | None, request_hash: bytes | None) -> NewTask:
        task_type = body.task_type or self._default_type
        payload = dump(body.payload)
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise PayloadTooLarge(len(payload))
        known_type = self._registry.get(task_type)
        if known_type is not None:
            try:
                known_type.parse(payload)
            except ValidationError as exc:
                raise _invalid_payload(exc) from exc
        return NewTask(
            id=new_id(),
            task_type=task_type,
            title=body.title,
            user_id=body.user_id,
            payload=payload.decode("utf-8"),
            priority=body.priority,
            max_attempts=body.max_attempts,
            timeout_seconds=body.timeout,
            execute_at=body.execute_at,
            idempotency_key=idempotency_key,
            request_hash=request_hash,
        )

    def _view(self, task: StoredTask) -> TaskView:
        return self._views([task])[0]

    def _views(self, tasks: Sequence[StoredTask]) -> list[TaskView]:
        pending = any(status_of(task.state) is Status.PENDING for task in tasks)
        live = self._repository.live_types() if pending else {}
        return [_view_of(task, live) for task in tasks]


def _view_of(task: StoredTask, live: Mapping[str, int]) -> TaskView:
    status = status_of(task.state)
    omitted = [] if task.payload is not None else ["payload"]
    if status is Status.COMPLETED and task.result is None:
        omitted.append("result")
    return TaskView(
        id=task.id,
        task_type=task.task_type,
        title=task.title,
        user_id=task.user_id,
        status=status,
        payload=_json(task.payload),
        priority=task.priority,
        attempts=task.attempts,
        max_attempts=task.max_attempts,
        timeout=task.timeout_seconds,
        execute_at=task.execute_at,
        progress=ProgressView(percent=task.progress_percent, message=task.progress_message),
        result=_json(task.result),
        error=task.error,
        errors=[AttemptErrorView.model_validate(item) for item in _json(task.errors)],
        created_at=task.created_at,
        updated_at=task.updated_at,
        started_at=task.started_at,
        completed_at=task.completed_at,
        duration=None if task.duration is None else round(task.duration, 3),
        waiting_for=NO_WORKER if status is Status.PENDING and task.task_type not in live else None,
        omitted=omitted,
    )


def _json(text: str | None) -> Any:
    return None if text is None else read_json(text.encode("utf-8"))


def _invalid_payload(exc: ValidationError) -> Invalid:
    details = [
        FieldError(
            ".".join(("payload", *(str(part)[:100] for part in error["loc"]))),
            "unknown field" if error["type"] == "extra_forbidden" else error["msg"].removeprefix("Value error, "),
        )
        for error in exc.errors(include_url=False, include_input=False, include_context=False)[:20]
    ]
    return Invalid("; ".join(f"{item.field}: {item.message}" for item in details[:3]), details=details)


def _hash_of(body: TaskCreate) -> bytes:
    """The same for the same request, whatever the order of its fields."""
    named = {name: getattr(body, name) for name in body.model_fields_set}
    return hashlib.sha256(dump(_in_order(named))).digest()


def _in_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_in_order(item) for item in value]
    return value


def is_live(task: StoredTask) -> bool:
    return task.state in LIVE_STATES
