"""Request and response bodies of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import AfterValidator, Field, WithJsonSchema

from service_tasks.domain.callback import MAX_CALLBACK_URL_CHARACTERS
from service_tasks.domain.destinations import ascii_http_url
from service_tasks.domain.task import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_PRIORITY,
    MAX_ATTEMPTS_LIMIT,
    MAX_BATCH_TASKS,
    MAX_PRIORITY,
    MAX_TASK_TYPE_CHARACTERS,
    MAX_TIMEOUT_SECONDS,
    MAX_TITLE_CHARACTERS,
    MAX_UNIQUE_KEY_CHARACTERS,
    Obstacle,
    Status,
    status_named,
    status_names,
)
from servicekit.web.paging import NewestPage, NewestQuery
from servicekit.web.schemas import (
    Body,
    Id,
    JsonValue,
    PageView,
    Query,
    QueryFlag,
    QueryText,
    Seconds,
    Timestamp,
    Update,
    View,
    Visible,
)

_LAST_YEAR = 9000


def _status(name: str) -> str:
    status = status_named(name)
    if status is None:
        raise ValueError(f"must be one of {', '.join(Status)} (or {', '.join(status_names())})")
    return status.value


def _bounded_time(moment: datetime) -> datetime:
    if moment.year > _LAST_YEAR:
        raise ValueError("is too far in the future")
    return moment


Title = Annotated[str, Field(min_length=1, max_length=MAX_TITLE_CHARACTERS), Visible]

#: Where the end of a task is POSTed. The use case checks whether its host is allowed.
CallbackUrl = Annotated[str, Field(max_length=MAX_CALLBACK_URL_CHARACTERS), AfterValidator(ascii_http_url)]
CALLBACK_URL_SAYS = "its end is POSTed there, signed; CALLBACK_HOSTS must name the host"

BoundedTime = AfterValidator(_bounded_time)

Timeout = Annotated[Seconds, Field(ge=0.1, le=MAX_TIMEOUT_SECONDS)]

StatusFilter = Annotated[
    str,
    AfterValidator(_status),
    WithJsonSchema({"type": "string", "enum": list(status_names())}),
]


class TaskCreate(Body):
    """What a new task should be; every field may be left out."""

    example: ClassVar[Mapping[str, Any]] = {"task_type": "io", "payload": {"seconds": 4}, "title": "Ask the supplier"}

    task_type: str | None = Field(
        default=None, min_length=1, max_length=MAX_TASK_TYPE_CHARACTERS, description="see GET /task-types"
    )
    payload: JsonValue = Field(default_factory=dict, description="any JSON of at most 256 KiB; {} when left out")
    execute_at: Annotated[Timestamp, BoundedTime] | None = Field(
        default=None, description="not before this moment, which must be in the future; now when left out"
    )
    max_attempts: int | None = Field(
        default=None,
        ge=1,
        le=MAX_ATTEMPTS_LIMIT,
        description=f"the type's own when left out, {DEFAULT_MAX_ATTEMPTS} where that names none",
    )
    priority: int = Field(
        default=DEFAULT_PRIORITY,
        ge=0,
        le=MAX_PRIORITY,
        description="higher goes first; a waiting task gains one a minute",
    )
    timeout: Timeout | None = Field(
        default=None,
        description="seconds that one attempt may take, 0.1 to 86400; the type's own when left out",
    )
    user_id: Id | None = Field(default=None, description="stored as given, unless that user was deleted")
    title: Title | None = None
    unique_key: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_UNIQUE_KEY_CHARACTERS,
        description="while a task with this key is pending or processing, no second one is made",
    )
    callback_url: CallbackUrl | None = Field(default=None, description=CALLBACK_URL_SAYS)


class TaskBatchCreate(Body):
    """Tasks to be made together, or not at all."""

    example: ClassVar[Mapping[str, Any]] = {"tasks": [{"task_type": "io", "payload": {"seconds": 4}}, {}]}

    tasks: list[TaskCreate] = Field(min_length=1, max_length=MAX_BATCH_TASKS)


class TaskTypeUpdate(Update):
    """How many tasks of a type may run at once, on all workers together; null: any number."""

    example: ClassVar[Mapping[str, Any]] = {"max_running": 10}

    max_running: int | None = Field(default=None, ge=1, le=1_000_000)
    max_running_per_user: int | None = Field(default=None, ge=1, le=1_000_000)


class TaskFilter(NewestQuery):
    """Which tasks are wanted."""

    status: StatusFilter | None = Field(default=None, description="in any case; words of other services are known too")
    task_type: QueryText | None = Field(default=None, min_length=1, max_length=MAX_TASK_TYPE_CHARACTERS)
    light: QueryFlag = Field(
        default=False, description="leave out payload, result and errors, and shorten an error to 200 characters"
    )


class TaskQuery(TaskFilter):
    """Which tasks are wanted, of anybody or of one user."""

    user_id: Id | None = None


class DeleteQuery(Query):
    """How a task goes."""

    purge: QueryFlag = Field(default=False, description="remove the record too; a live task is cancelled first")


class TaskShow(Query):
    """How much of a task is wanted."""

    trace: QueryFlag = Field(default=False, description="show the traceback of each failed attempt too")
    light: QueryFlag = Field(default=False, description="leave out payload and result")


class ProgressView(View):
    """How far a task is."""

    percent: int = Field(ge=0, le=100)
    message: str | None


class AttemptErrorView(View):
    """Why one attempt failed."""

    attempt: int
    type: str
    message: str
    failed_at: datetime
    worker: str
    trace: str | None = Field(
        default=None, description="the end of its traceback; null unless asked for with `?trace=true`"
    )


class TaskView(View):
    """One task."""

    id: UUID
    task_type: str
    title: str | None
    user_id: UUID | None
    status: Status
    payload: JsonValue
    priority: int
    attempts: int = Field(description="how often it has been started")
    max_attempts: int
    timeout: float | None = Field(description="seconds that one attempt may take; null: the type's own")
    execute_at: datetime = Field(description="when the task, or its next attempt, is due")
    progress: ProgressView
    result: JsonValue = Field(description="what the handler gave, at most 1 MiB and 500 levels; numbers are exact")
    error: str | None = Field(description="why the last attempt failed")
    errors: list[AttemptErrorView] = Field(description="one for each failed attempt, the oldest first; the last 50")
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = Field(description="when the present or last attempt began")
    completed_at: datetime | None = Field(description="when it ended, however it ended")
    duration: float | None = Field(description="seconds from started_at to completed_at, or to now")
    unique_key: str | None
    callback_url: str | None
    callback_task_id: UUID | None = Field(description="the task that tells its end to callback_url, once it has ended")
    waiting_for: str | None = Field(description="why a pending task cannot start, where that is known")
    obstacle: Obstacle | None = Field(description="the same in one word")
    omitted: list[str] = Field(
        description="which of payload, result and errors were left out: in lists those of more than 16 KiB"
    )


class TaskBatchView(View):
    """What became of a batch."""

    ids: list[UUID] = Field(description="of the tasks, in the order of the request")
    created: int = Field(description="how many were made")
    existing: list[int] = Field(description="places in `ids`, from 0, of live tasks that had the unique_key already")


class TaskPage(NewestPage):
    """One page of tasks. One that is filtered may be shorter than `limit`, even empty, though `next` is there: one
    request looks at 10,000 tasks."""

    total_is_exact: bool = Field(description="false: `total` is how many there are at least")
    tasks: list[TaskView]


class TaskStatusView(View):
    """How a task stands."""

    id: UUID
    status: Status
    created_at: datetime
    duration: float | None = Field(description="seconds the present or last attempt has taken")


class TaskResultView(View):
    """How a task ended."""

    id: UUID
    status: Status
    result: JsonValue
    error: str | None
    completed_at: datetime


class RetryView(View):
    """The pause before the next attempt, in seconds: base × factor for each attempt before, at most cap."""

    base_seconds: float
    factor: float
    cap_seconds: float
    jitter: float = Field(description="so much of the pause, as a share, earlier or later by chance")


class LimitsView(View):
    """How many tasks of one type may run at once over all workers, as the type declares it; null: any number."""

    max_running: int | None
    max_running_per_user: int | None


class TaskTypeView(View):
    """One kind of task. Of a type that the workers know and the API does not, most is null."""

    name: str
    description: str
    payload_schema: dict[str, Any] | None = Field(
        description="JSON Schema; {} takes anything, null: the workers know it, the API does not"
    )
    result_schema: dict[str, Any] | None = Field(description="JSON Schema of the result; {} may be anything")
    timeout: float | None = Field(description="seconds that one attempt may take where the task names none")
    max_attempts: int | None = Field(description="of tasks that name none")
    retry: RetryView | None = Field(description="null: the backoff of the worker that runs it")
    limits: LimitsView | None
    needs: list[str] = Field(description="variables without which a worker leaves this type alone")
    workers: int = Field(description="living worker processes that run it")
    paused: bool = Field(description="no task of this type is started")
    max_running: int | None = Field(
        description="tasks that may run at once, on all workers together, in place of what `limits` says; null: not set"
    )
    max_running_per_user: int | None = Field(description="the same for those of one user")


class TaskTypesView(PageView):
    """A page of the kinds of tasks that the API or a living worker knows, or that have settings, by name."""

    task_types: list[TaskTypeView]
    default: str
