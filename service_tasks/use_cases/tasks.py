"""The use cases of tasks, for HTTP, commands and messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from sys import getsizeof
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from uuid import UUID

from pydantic import ValidationError

from service_tasks.domain.destinations import AllowedHost, destination_of, is_allowed
from service_tasks.domain.task import (
    DEFAULT_MAX_ATTEMPTS,
    MAX_PAYLOAD_BYTES,
    Obstacle,
    State,
    Status,
    public_status,
    states_of,
)
from service_tasks.engine.ports import READY, SCHEDULED
from service_tasks.engine.registry import Registry
from service_tasks.errors import (
    LimitReached,
    PayloadTooLarge,
    TaskNotFinished,
    TaskNotFound,
    TaskStateConflict,
    TaskTypeNotFound,
)
from service_tasks.schemas.tasks import (
    AttemptErrorView,
    LimitsView,
    ProgressView,
    RetryView,
    TaskBatchView,
    TaskCreate,
    TaskFilter,
    TaskPage,
    TaskResultView,
    TaskStatusView,
    TaskTypesView,
    TaskTypeUpdate,
    TaskTypeView,
    TaskView,
)
from servicekit.identity.reach import Reach
from servicekit.process.ids import new_id
from servicekit.web.idempotency import fingerprint, own_key
from servicekit.web.schemas import invalid_from
from servicekit.wire import memory
from servicekit.wire.envelope import Written, dump
from servicekit.wire.errors import FieldError, Forbidden, IdempotencyKeyReused, Invalid
from servicekit.wire.json_reader import read_stored, weight

#: of a task that names none
DEFAULT_TASK_TYPE = "noop"
NO_WORKER = "no worker runs this type"
PAUSED = "this type is paused"
SUSPECT = "a worker died with it; such tasks start a few at a time, to find the one that kills workers"
#: The most types that may be paused or limited at a time.
MOST_CONTROLS = 1000

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


_WAITING_FOR: dict[str, str] = {Obstacle.PAUSED: PAUSED, Obstacle.NO_WORKER: NO_WORKER, Obstacle.SUSPECT: SUSPECT}


class NewTask(NamedTuple):
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
    unique_key: str | None = None
    callback_url: str | None = None


class StoredTask(NamedTuple):
    """A stored task; JSON values as text."""

    id: UUID
    state: State
    task_type: str
    title: str | None
    user_id: UUID | None
    payload: str
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
    unique_key: str | None
    callback_url: str | None
    callback_task_id: UUID | None
    obstacle: Obstacle | None


class TaskStanding(NamedTuple):
    """How a stored task stands."""

    id: UUID
    state: State
    created_at: datetime
    duration: float | None


@dataclass(frozen=True, slots=True)
class Control:
    """Settings by operators for one type; None: the limit that the type declares, if any."""

    paused: bool = False
    max_running: int | None = None
    max_running_per_user: int | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """The filter of a list; None: any. `after` skips that id and all newer ones."""

    states: tuple[State, ...] | None
    task_type: str | None
    user_id: UUID | None
    after: UUID | None
    limit: int
    offset: int
    #: without payload, result and errors, and with the beginning of an error alone
    light: bool = False


class TasksFound(NamedTuple):
    """A page: a JSON array of `TaskView`s without large values, how many match in all (if not exact, at least), and the
    `after` of the next page."""

    tasks: str
    total: int
    total_is_exact: bool
    next: UUID | None


NO_TASKS = TasksFound("[]", 0, True, None)


class PastExecuteAt(Exception):
    """execute_at is not in the future by the database's clock. `index` is the task's index in its batch."""

    def __init__(self, index: int = 0) -> None:
        super().__init__(index)
        self.index = index


class MakingRepository(Protocol[T_co]):
    """What making a task needs from the database. Returns whole tasks, or only ids."""

    def add(self, task: NewTask, announcement: str | None = None) -> T_co | None:
        """Store a task and announce it with the commit; None if its idempotency key or its unique key is taken. Raises
        `PastExecuteAt` and `UserDeleted`."""

    def by_unique_key(self, unique_key: str, *, answers: tuple[str, bytes] | None = None, reach: Reach) -> T_co | None:
        """The live task with this key. A request's idempotency key and hash, given as `answers`, lead to it from now
        on; None if they lead to a task already. Raises `UniqueKeyTaken` if it is beyond reach."""

    def by_key(self, idempotency_key: str, *, reach: Reach) -> tuple[T_co, bytes] | None:
        """The task that the request with this key made or was answered with, and the hash of that request."""


class TaskRepository(MakingRepository[StoredTask], Protocol):
    """What the use cases need from the database. Each method is one transaction."""

    def add_many(self, tasks: Sequence[NewTask], *, reach: Reach) -> Mapping[UUID, UUID]:
        """Store all of them or none. Returns, for those whose unique key is taken, the live task that has it.

        Raises `PastExecuteAt`, and `UserDeleted` with the index in the batch; `UniqueKeyTaken` if that live task is
        beyond reach. Ignores idempotency keys.
        """

    def controls(self) -> Mapping[str, Control]:
        """The settings by type; a type without any has no entry."""

    def control(self, task_type: str, changes: Mapping[str, Any]) -> bool:
        """Set the given fields of `Control`, keep the others; False if MOST_CONTROLS types have settings already."""

    def forget_control(self, task_type: str) -> None:
        """Remove the settings of a type, if it has any."""

    def has_seen(self, task_type: str) -> bool:
        """Whether a worker, a schedule, a live task or a setting names the type, or workers have run it lately."""

    def get(self, task_id: UUID, *, reach: Reach) -> StoredTask | None: ...

    def status(self, task_id: UUID, *, reach: Reach) -> TaskStanding | None: ...

    def search(self, selection: Selection, *, waits: str, reach: Reach) -> TasksFound:
        """The selected page, newest first. `waits` is JSON: what is said of an obstacle, or of an obstacle and a type.

        Raises `Invalid` for an offset that goes beyond all tasks that were looked at.
        """

    def cancel(self, task_id: UUID, *, reach: Reach) -> StoredTask | None:
        """Cancel a live task and announce it to its worker; None if it is not live."""

    def purge(self, task_id: UUID, *, reach: Reach) -> StoredTask | None:
        """Remove and return a task in any state, a live one as cancelled, and announce it to its worker."""

    def retry(self, task_id: UUID, *, reach: Reach) -> StoredTask | None:
        """Make a failed or cancelled task ready again; None if it is neither."""

    def live_types(self) -> Mapping[str, int]:
        """The types that live workers run, and how many workers run each."""


@dataclass(frozen=True, slots=True)
class Created(Generic[T]):
    """`replayed`: made by an earlier request with the same idempotency key. `existing`: another request's live task
    with the same unique key."""

    task: T
    replayed: bool = False
    existing: bool = False


class TaskMaker(Generic[T]):
    """Checks and stores new tasks, wherever they come from. `announce` tells workers that tasks are ready or scheduled;
    `may_announce` tells whether the task's own commit may do that instead. They must neither block nor raise.
    `callback_hosts` are the hosts that a callback_url may name."""

    def __init__(
        self,
        repository: MakingRepository[T],
        registry: Registry,
        *,
        announce: Callable[[str], None],
        may_announce: Callable[[], bool],
        callback_hosts: Sequence[AllowedHost],
    ) -> None:
        self._repository = repository
        self._registry = registry
        self._announce = announce
        self._may_announce = may_announce
        self._callback_hosts = callback_hosts

    def make(self, body: TaskCreate, *, idempotency_key: str | None = None, reach: Reach) -> Created[T]:
        """Store a task, or return the one that the same key and request made before.

        Raises `Invalid` (also as `UserDeleted`), `Forbidden`, `PayloadTooLarge`, `IdempotencyKeyReused` and, if the
        live task with its unique key is beyond reach, `UniqueKeyTaken`.
        """
        key = None if idempotency_key is None else (own_key(idempotency_key, reach), fingerprint(body))
        try:
            return self._make(body, key, reach)
        except (Invalid, PayloadTooLarge):
            # A repeated request must not fail because its execute_at has passed meanwhile, or its user is gone.
            earlier = None if key is None else self._replayed(*key, reach)
            if earlier is None:
                raise
            return earlier

    def _make(self, body: TaskCreate, key: tuple[str, bytes] | None, reach: Reach) -> Created[T]:
        new = self._new_task(body, *(key or (None, None)), reach=reach)
        announcement = READY if new.execute_at is None else SCHEDULED
        while True:
            announced = self._may_announce()
            try:
                stored = self._repository.add(new, announcement if announced else None)
            except PastExecuteAt as exc:
                raise Invalid.field("execute_at", "must be in the future") from exc
            if stored is not None:
                if not announced:
                    self._announce(announcement)
                return Created(stored)
            earlier = None if key is None else self._replayed(*key, reach)
            if earlier is None and new.unique_key is not None:
                alive = self._repository.by_unique_key(new.unique_key, answers=key, reach=reach)
                earlier = None if alive is None else Created(alive, existing=True)
            if earlier is not None:
                return earlier
            # The task with the key was purged or has ended meanwhile: the key is free again.

    def prepare(self, body: TaskCreate, *, reach: Reach) -> NewTask:
        """Check a task that the caller will store. Raises `Invalid`, `Forbidden` and `PayloadTooLarge`."""
        return self._new_task(body, None, None, reach=reach)

    def _replayed(self, idempotency_key: str, request_hash: bytes, reach: Reach) -> Created[T] | None:
        found = self._repository.by_key(idempotency_key, reach=reach)
        if found is None:
            return None
        task, its_hash = found
        if its_hash != request_hash:
            raise IdempotencyKeyReused
        return Created(task, replayed=True)

    def _new_task(
        self, body: TaskCreate, idempotency_key: str | None, request_hash: bytes | None, *, reach: Reach
    ) -> NewTask:
        owner = body.user_id
        if reach.owner is not None:
            if owner is not None and owner != reach.owner:
                problem = FieldError("user_id", "must be your own, or left out")
                raise Forbidden(f"{problem.field}: {problem.message}", details=[problem])
            owner = reach.owner
        task_type = body.task_type or DEFAULT_TASK_TYPE
        known_type = self._registry.get(task_type)
        if known_type is not None and known_type.internal:
            raise Invalid.field("task_type", f"tasks of the type {task_type} are made by the service alone")
        if body.callback_url is not None:
            self._check_callback_url(body.callback_url)
        payload = b"{}" if body.payload == {} else dump(body.payload)
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise PayloadTooLarge(len(payload))
        # Without a model any payload is valid; its JSON was checked already.
        if known_type is not None and known_type.payload_model is not None:
            try:
                known_type.parse(payload)
            except ValidationError as exc:
                raise invalid_from(exc, "payload") from exc
        # By position: by name it takes 50 % longer, and a batch may have ten thousand.
        return NewTask(
            new_id(),
            task_type,
            body.title,
            owner,
            payload.decode("utf-8"),
            body.priority,
            body.max_attempts or (known_type and known_type.max_attempts) or DEFAULT_MAX_ATTEMPTS,
            body.timeout,
            body.execute_at,
            idempotency_key,
            request_hash,
            body.unique_key,
            body.callback_url,
        )

    def _check_callback_url(self, url: str) -> None:
        if not self._callback_hosts:
            raise Invalid.field("callback_url", "nobody is called back here: CALLBACK_HOSTS names no host")
        scheme, host, port = destination_of(url)
        if not is_allowed(self._callback_hosts, scheme, host, port):
            raise Invalid.field("callback_url", f"CALLBACK_HOSTS does not name {host}:{port}")


class Tasks:
    """The use cases. The arguments are those of `TaskMaker`."""

    def __init__(
        self,
        repository: TaskRepository,
        registry: Registry,
        *,
        announce: Callable[[str], None],
        may_announce: Callable[[], bool] = lambda: False,
        callback_hosts: Sequence[AllowedHost] = (),
    ) -> None:
        self._repository = repository
        self._registry = registry
        self._announce = announce
        self._waits = _WAITING_FOR | {
            f"no_worker {one.name}": f"{NO_WORKER}; it needs {' and '.join(one.needs)} to be set for the workers"
            for one in registry
            if one.needs
        }
        self._maker = TaskMaker(
            repository,
            registry,
            announce=announce,
            may_announce=may_announce,
            callback_hosts=callback_hosts,
        )

    def create(self, body: TaskCreate, *, idempotency_key: str | None = None, reach: Reach) -> Created[TaskView]:
        """Store a task, or return the one that the same key and request made before."""
        made = self._maker.make(body, idempotency_key=idempotency_key, reach=reach)
        return Created(self._view(made.task), replayed=made.replayed, existing=made.existing)

    def create_many(self, bodies: Sequence[TaskCreate], *, reach: Reach) -> TaskBatchView:
        """Store all of them in one transaction, or none; an error names the index of the bad one."""
        new: list[NewTask] = []
        for index, body in enumerate(bodies):
            try:
                new.append(self._maker.prepare(body, reach=reach))
            except Invalid as exc:
                raise _in_batch(index, exc) from exc
            except PayloadTooLarge as exc:
                raise exc.at(f"tasks.{index}.payload") from exc
        try:
            taken = self._repository.add_many(new, reach=reach)
        except PastExecuteAt as exc:
            raise Invalid.field(f"tasks.{exc.index}.execute_at", "must be in the future") from exc
        made = [task for task in new if task.id not in taken]
        for announcement, is_there in (
            (READY, any(task.execute_at is None for task in made)),
            (SCHEDULED, any(task.execute_at is not None for task in made)),
        ):
            if is_there:
                self._announce(announcement)
        return TaskBatchView(
            ids=[taken.get(task.id, task.id) for task in new],
            created=len(made),
            existing=[index for index, task in enumerate(new) if task.id in taken] if taken else [],
        )

    def get(self, task_id: UUID, *, trace: bool = False, light: bool = False, reach: Reach) -> TaskView:
        """With `trace`, the errors carry their tracebacks; `light`, payload and result are left out."""
        return self._view(self._shown(task_id, reach), trace=trace, light=light)

    def prepare(self, body: TaskCreate, *, reach: Reach) -> NewTask:
        """Check a task that the caller will store. Raises `Invalid`, `Forbidden` and `PayloadTooLarge`."""
        return self._maker.prepare(body, reach=reach)

    def search(self, query: TaskFilter, *, user_id: UUID | None = None, reach: Reach) -> TaskPage:
        selection = Selection(
            states=None if query.status is None else states_of(Status(query.status)),
            task_type=query.task_type,
            user_id=user_id,
            after=query.after,
            limit=query.limit,
            offset=query.offset,
            light=query.light,
        )
        found = self._repository.search(selection, waits=dump(self._waits).decode(), reach=reach)
        # As text and in UTF-8, alone and in its envelope.
        memory.take(4 * getsizeof(found.tasks))
        return TaskPage.unchecked(
            tasks=Written(found.tasks),
            total=found.total,
            total_is_exact=found.total_is_exact,
            limit=query.limit,
            offset=query.offset,
            next=found.next,
        )

    def status(self, task_id: UUID, *, reach: Reach) -> TaskStatusView:
        task = self._repository.status(task_id, reach=reach)
        if task is None:
            raise TaskNotFound
        return TaskStatusView.unchecked(
            id=task.id, status=public_status(task.state), created_at=task.created_at, duration=task.duration
        )

    def result(self, task_id: UUID, *, reach: Reach) -> TaskResultView:
        """Of an ended task; a failed or cancelled one has no result but says why."""
        task = self._shown(task_id, reach)
        if task.completed_at is None:
            raise TaskNotFinished(f"The task has no result yet: it is {public_status(task.state)}.")
        return TaskResultView.unchecked(
            id=task.id,
            status=public_status(task.state),
            result=_written(task.result),
            error=task.error,
            completed_at=task.completed_at,
        )

    def cancel(self, task_id: UUID, *, reach: Reach) -> TaskView:
        task = self._repository.cancel(task_id, reach=reach)
        if task is None:
            raise TaskNotFound("There is no task with this id, or it has ended already.")
        return self._view(task)

    def purge(self, task_id: UUID, *, reach: Reach) -> TaskView:
        task = self._repository.purge(task_id, reach=reach)
        if task is None:
            raise TaskNotFound
        return self._view(task)

    def retry(self, task_id: UUID, *, reach: Reach) -> TaskView:
        task = self._repository.retry(task_id, reach=reach)
        if task is None:
            status = public_status(self._stored(task_id, reach).state)
            raise TaskStateConflict(f"The task is {status}; only a failed or cancelled one can be run again.")
        self._announce(READY)
        return self._view(task)

    def types(self, *, limit: int | None = None, offset: int = 0) -> TaskTypesView:
        """In the order of their names; all of them without a limit."""
        live, controls = self._repository.live_types(), self._repository.controls()
        names = sorted({*self._registry.names(), *live, *controls})
        page = names[offset:][:limit]
        return TaskTypesView(
            task_types=[self._type_view(name, live, controls) for name in page],
            default=DEFAULT_TASK_TYPE,
            total=len(names),
            limit=len(page) if limit is None else limit,
            offset=offset,
        )

    def pause(self, task_type: str) -> TaskTypeView:
        """Start no more tasks of this type; running ones go on."""
        return self._set(task_type, {"paused": True})

    def resume(self, task_type: str) -> TaskTypeView:
        view = self._set(task_type, {"paused": False})
        self._announce(READY)
        return view

    def limit(self, task_type: str, body: TaskTypeUpdate) -> TaskTypeView:
        """Set how many tasks of a type run at once on all workers together."""
        view = self._set(task_type, body.named())
        self._announce(READY)
        return view

    def forget_settings(self, task_type: str) -> TaskTypeView:
        """Resume a type and let it have the limits that it declares; returns it as it was."""
        self._require_known(task_type)
        was = self._type_view(task_type, self._repository.live_types(), self._repository.controls())
        self._repository.forget_control(task_type)
        self._announce(READY)
        return was

    def _set(self, task_type: str, changes: Mapping[str, Any]) -> TaskTypeView:
        self._require_known(task_type)
        if not self._repository.control(task_type, changes):
            raise LimitReached(f"{MOST_CONTROLS} types are paused or limited already: delete the settings of some.")
        return self._type_view(task_type, self._repository.live_types(), self._repository.controls())

    def _require_known(self, task_type: str) -> None:
        """Settings of invented names would stay for ever."""
        if self._registry.get(task_type) is None and not self._repository.has_seen(task_type):
            raise TaskTypeNotFound

    def _type_view(self, name: str, live: Mapping[str, int], controls: Mapping[str, Control]) -> TaskTypeView:
        known, control = self._registry.get(name), controls.get(name, Control())
        return TaskTypeView(
            name=name,
            description="" if known is None else known.description,
            payload_schema=None if known is None else known.payload_schema(),
            result_schema=None if known is None else known.result_schema(),
            timeout=None if known is None else known.timeout_seconds,
            max_attempts=None if known is None else known.max_attempts or DEFAULT_MAX_ATTEMPTS,
            retry=None if known is None or known.retry is None else RetryView.of(known.retry),
            limits=None if known is None else LimitsView.of(known),
            needs=[] if known is None else list(known.needs),
            workers=live.get(name, 0),
            paused=control.paused,
            max_running=control.max_running,
            max_running_per_user=control.max_running_per_user,
        )

    def _stored(self, task_id: UUID, reach: Reach) -> StoredTask:
        task = self._repository.get(task_id, reach=reach)
        if task is None:
            raise TaskNotFound
        return task

    def _shown(self, task_id: UUID, reach: Reach) -> StoredTask:
        task = self._stored(task_id, reach)
        _count(task)
        return task

    def _view(self, task: StoredTask, *, trace: bool = False, light: bool = False) -> TaskView:
        has_result = task.state is State.COMPLETED
        return TaskView.unchecked(
            id=task.id,
            task_type=task.task_type,
            title=task.title,
            user_id=task.user_id,
            status=public_status(task.state),
            payload=None if light else _written(task.payload),
            priority=task.priority,
            attempts=task.attempts,
            max_attempts=task.max_attempts,
            timeout=task.timeout_seconds,
            execute_at=task.execute_at,
            progress=ProgressView.unchecked(percent=task.progress_percent, message=task.progress_message),
            result=None if light else _written(task.result),
            error=task.error,
            errors=[_error_view(item, trace=trace) for item in _errors(task)],
            created_at=task.created_at,
            updated_at=task.updated_at,
            started_at=task.started_at,
            completed_at=task.completed_at,
            duration=task.duration,
            unique_key=task.unique_key,
            callback_url=task.callback_url,
            callback_task_id=task.callback_task_id,
            waiting_for=self._waiting_for(task),
            obstacle=task.obstacle,
            omitted=(["payload", "result"] if has_result else ["payload"]) if light else [],
        )

    def _waiting_for(self, task: StoredTask) -> str | None:
        if task.obstacle is None:
            return None
        return self._waits.get(f"{task.obstacle} {task.task_type}") or self._waits[task.obstacle]


def _error_view(item: Mapping[str, Any], *, trace: bool) -> AttemptErrorView:
    return AttemptErrorView.model_validate(item if trace else {**item, "trace": None})


def _in_batch(index: int, exc: Invalid) -> Invalid:
    details = [FieldError(f"tasks.{index}.{item.field}", item.message) for item in exc.details]
    return Invalid(f"tasks.{index}: {exc.message}", details=details)


def _errors(task: StoredTask) -> Any:
    return () if task.errors == "[]" else read_stored(task.errors)


def _written(text: str | None) -> Written | None:
    return None if text is None else Written(text)


def _count(task: StoredTask) -> None:
    """Reserve the memory for showing it. Raises `Overloaded`."""
    # As read, as written, and as sent.
    texts = 4 * (len(task.payload) + len(task.result or ""))
    if task.errors != "[]":
        texts += 3 * weight(task.errors.encode("utf-8"))
    memory.take(texts)
