"""What comes into the task service and what leaves it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, Field, WithJsonSchema

from service_tasks.domain.task import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_PRIORITY,
    MAX_ATTEMPTS_LIMIT,
    MAX_PRIORITY,
    MAX_TASK_TYPE_CHARACTERS,
    MAX_TIMEOUT_SECONDS,
    MAX_TITLE_CHARACTERS,
    Status,
    status_from_word,
    status_words,
)
from servicekit.schemas import Body, Id, JsonValue, PageQuery, PageView, Query, QueryText, Seconds, Timestamp, View

_LAST_YEAR = 9000


def _known_status(word: str) -> str:
    status = status_from_word(word)
    if status is None:
        raise ValueError(f"must be one of {', '.join(Status)} (or {', '.join(status_words())})")
    return status.value


def _bounded_time(moment: datetime) -> datetime:
    if moment.year > _LAST_YEAR:
        raise ValueError("is too far in the future")
    return moment


BoundedTime = AfterValidator(_bounded_time)

StatusFilter = Annotated[
    str,
    AfterValidator(_known_status),
    WithJsonSchema({"type": "string", "enum": [*status_words(), "New", "In Progress", "Running", "Done"]}),
]


class TaskCreate(Body):
    """What a new task should be; every field may be left out."""

    task_type: str | None = Field(
        default=None, min_length=1, max_length=MAX_TASK_TYPE_CHARACTERS, description="see GET /task-types"
    )
    payload: JsonValue = Field(default_factory=dict, description="any JSON of at most 256 KiB; {} when left out")
    execute_at: Annotated[Timestamp, BoundedTime] | None = Field(
        default=None, description="not before this moment, which must be in the future; now when left out"
    )
    max_attempts: int = Field(default=DEFAULT_MAX_ATTEMPTS, ge=1, le=MAX_ATTEMPTS_LIMIT)
    priority: int = Field(default=DEFAULT_PRIORITY, ge=0, le=MAX_PRIORITY, description="higher goes first")
    timeout: Seconds | None = Field(
        default=None,
        ge=0.1,
        le=MAX_TIMEOUT_SECONDS,
        description="seconds that one attempt may take; the type's own when left out",
    )
    user_id: Id | None = Field(default=None, description="stored as given; nobody is asked whether it exists")
    title: str | None = Field(default=None, min_length=1, max_length=MAX_TITLE_CHARACTERS)


class TaskFilter(PageQuery):
    """Which tasks are wanted."""

    status: StatusFilter | None = Field(default=None, description="in any case; other services' words are known")
    task_type: QueryText | None = Field(default=None, min_length=1, max_length=MAX_TASK_TYPE_CHARACTERS)
    after: Id | None = Field(default=None, description="the `next` of the page before; better than a large offset")


class TaskQuery(TaskFilter):
    """Which tasks are wanted, of anybody or of one user."""

    user_id: Id | None = None


class DeleteQuery(Query):
    """How a task goes."""

    purge: Annotated[bool, WithJsonSchema({"type": "string", "enum": ["true", "false"]})] = Field(
        default=False, description="remove the record too; a live task is cancelled first"
    )


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
    result: JsonValue
    error: str | None = Field(description="why the last attempt failed")
    errors: list[AttemptErrorView] = Field(description="one for each failed attempt, the oldest first")
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = Field(description="when the present or last attempt began")
    completed_at: datetime | None = Field(description="when it ended, however it ended")
    duration: float | None = Field(description="seconds from started_at to completed_at, or to now")
    waiting_for: str | None = Field(description="why a pending task cannot start, where that is known")
    omitted: list[str] = Field(description="fields left out of a list because they are large; ask for the task itself")


class TaskPage(PageView):
    """One page of tasks."""

    tasks: list[TaskView]
    next: UUID | None = Field(description="send it as `after` to get the next page; null on the last")


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


class TaskTypeView(View):
    """One kind of task."""

    name: str
    description: str
    payload_schema: dict[str, Any] | None = Field(
        description="JSON Schema; {} takes anything, null: the workers know it, the API does not"
    )
    timeout: float | None = Field(description="seconds that one attempt may take where the task names none")
    workers: int = Field(description="living worker processes that run it")


class TaskTypesView(View):
    """Every kind of task that the API or a living worker knows."""

    task_types: list[TaskTypeView]
    default: str
    total: int
