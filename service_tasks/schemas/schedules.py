"""Request and response bodies of schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from service_tasks.domain.cron import MAX_CRON_CHARACTERS
from service_tasks.domain.schedule import (
    MAX_INTERVAL_SECONDS,
    MAX_SCHEDULE_NAME_CHARACTERS,
    MAX_TIMEZONE_CHARACTERS,
    MIN_INTERVAL_SECONDS,
)
from service_tasks.domain.task import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_PRIORITY,
    MAX_ATTEMPTS_LIMIT,
    MAX_PRIORITY,
    MAX_TASK_TYPE_CHARACTERS,
)
from service_tasks.schemas.tasks import CALLBACK_URL_SAYS, BoundedTime, CallbackUrl, Timeout, Title
from servicekit.web.paging import NewestPage, NewestQuery
from servicekit.web.preconditions import Resource
from servicekit.web.schemas import (
    Body,
    Id,
    JsonValue,
    QueryText,
    Timestamp,
    Update,
    Visible,
    unsent,
)

MissedName = Literal["skip", "run_once", "run_all"]
ScheduleStatusName = Literal["active", "paused", "finished"]

Name = Annotated[str, Field(min_length=1, max_length=MAX_SCHEDULE_NAME_CHARACTERS), Visible]
TaskTypeName = Annotated[str, Field(min_length=1, max_length=MAX_TASK_TYPE_CHARACTERS)]
Priority = Annotated[int, Field(ge=0, le=MAX_PRIORITY)]
Attempts = Annotated[int, Field(ge=1, le=MAX_ATTEMPTS_LIMIT)]
Cron = Annotated[str, Field(min_length=1, max_length=MAX_CRON_CHARACTERS, examples=["30 7 * * MON-FRI"])]
Zone = Annotated[str, Field(min_length=1, max_length=MAX_TIMEZONE_CHARACTERS, examples=["Europe/Berlin"])]
Every = Annotated[int, Field(ge=MIN_INTERVAL_SECONDS, le=MAX_INTERVAL_SECONDS)]


class ScheduleCreate(Body):
    """A new schedule: the task it makes, and exactly one of cron, every and at."""

    example: ClassVar[Mapping[str, Any]] = {
        "name": "Ask the supplier every morning",
        "task_type": "io",
        "payload": {"seconds": 4},
        "cron": "30 7 * * MON-FRI",
        "timezone": "Europe/Berlin",
    }

    name: Name = Field(description="no other schedule of its user has it")
    task_type: TaskTypeName | None = Field(default=None, description="see GET /task-types")
    payload: JsonValue = Field(default_factory=dict, description="of each task; {} when left out")
    title: Title | None = None
    user_id: Id | None = Field(default=None, description="stored as given, unless that user was deleted")
    priority: Priority = DEFAULT_PRIORITY
    max_attempts: Attempts = DEFAULT_MAX_ATTEMPTS
    timeout: Timeout | None = None
    callback_url: CallbackUrl | None = Field(default=None, description=f"of each task: {CALLBACK_URL_SAYS}")
    cron: Cron | None = Field(
        default=None, description="minute, hour, day of the month, month, day of the week; or a word such as @daily"
    )
    timezone: Zone | None = Field(default=None, description="of cron, by its IANA name; UTC when left out")
    every: Every | None = Field(
        default=None, description="seconds from one run to the next, counted from starts_at, else from when it was set"
    )
    at: Annotated[Timestamp, BoundedTime] | None = Field(default=None, description="the one time to run")
    starts_at: Annotated[Timestamp, BoundedTime] | None = Field(
        default=None, description="no run before it; an interval is counted from it"
    )
    ends_at: Annotated[Timestamp, BoundedTime] | None = Field(default=None, description="no run after it")
    missed: MissedName = Field(
        default="run_once",
        description="what becomes of runs whose time passed while no worker was there: one task for all, one for each "
        "of the newest 100, or none",
    )


class ScheduleQuery(NewestQuery):
    """Which schedules are wanted."""

    status: ScheduleStatusName | None = None
    task_type: QueryText | None = Field(default=None, min_length=1, max_length=MAX_TASK_TYPE_CHARACTERS)
    user_id: Id | None = None


class ScheduleView(Resource):
    """One schedule."""

    # Changed by its runs: in the ETag they would make a schedule that runs every second impossible to update.
    untagged: ClassVar[frozenset[str]] = frozenset({"next_runs", "last_run_at", "last_task_id"})

    id: UUID
    name: str
    status: ScheduleStatusName = Field(description="finished: nothing follows any more")
    task_type: str
    payload: JsonValue
    title: str | None
    user_id: UUID | None
    priority: int
    max_attempts: int
    timeout: float | None
    callback_url: str | None
    cron: str | None
    timezone: str | None = Field(description="null unless there is a cron")
    every: int | None
    at: Timestamp | None
    starts_at: Timestamp | None
    ends_at: Timestamp | None
    missed: MissedName
    next_runs: list[Timestamp] = Field(description="the next five; none while it is paused")
    last_run_at: Timestamp | None = Field(description="when it last made a task")
    last_task_id: UUID | None
    problem: str | None = Field(description="why it was paused, if nobody asked for that")
    created_at: Timestamp
    updated_at: Timestamp = Field(description="when somebody last changed it")
    omitted: list[str] = Field(description="`payload` where a list left it out for having more than 16 KiB")


class ScheduleUpdate(Update):
    """The fields to change; the others stay as they are. A new cron, every or at takes the place of the old.

    A schedule as GET shows it may be sent back whole.
    """

    example: ClassVar[Mapping[str, Any]] = {"cron": "30 8 * * MON-FRI"}
    shown = ScheduleView
    # Where a list left something out, sending it back would remove it.
    fixed = Update.fixed | {"status", "omitted"}

    name: Name = unsent()
    task_type: TaskTypeName = unsent()
    payload: JsonValue = unsent()
    title: Title | None = unsent()
    user_id: Id | None = unsent()
    priority: Priority = unsent()
    max_attempts: Attempts = unsent()
    timeout: Timeout | None = unsent()
    callback_url: CallbackUrl | None = unsent()
    cron: Cron | None = unsent()
    timezone: Zone | None = unsent()
    every: Every | None = unsent()
    at: Annotated[Timestamp, BoundedTime] | None = unsent()
    starts_at: Annotated[Timestamp, BoundedTime] | None = unsent()
    ends_at: Annotated[Timestamp, BoundedTime] | None = unsent()
    missed: MissedName = unsent()


class SchedulePage(NewestPage):
    """A page of schedules, the newest first."""

    schedules: list[ScheduleView]
