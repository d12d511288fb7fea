"""Request and response bodies of operations on many tasks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from pydantic import Field

from service_tasks.domain.task import MAX_TASK_TYPE_CHARACTERS
from service_tasks.schemas.tasks import StatusFilter
from servicekit.web.schemas import Body, Id, Timestamp, View

MAX_BULK_TASKS = 10_000
DEFAULT_BULK_TASKS = 1000
_AS_OF = "when they were chosen; to mean no later ones with the next request, send it as"


class ManyTasks(Body):
    """Which tasks are meant; every field narrows it. At least one is needed, or `all`."""

    status: StatusFilter | None = Field(default=None, description="in any case; other services' words are known")
    task_type: str | None = Field(default=None, min_length=1, max_length=MAX_TASK_TYPE_CHARACTERS)
    user_id: Id | None = None
    created_from: Timestamp | None = Field(default=None, description="created at this moment or later")
    created_before: Timestamp | None = Field(default=None, description="created before this moment")
    ids: list[Id] | None = Field(
        default=None, min_length=1, max_length=MAX_BULK_TASKS, description="these alone; others of them are passed over"
    )
    all: bool = Field(default=False, description="true: no field narrows it, and that is meant")
    limit: int = Field(default=DEFAULT_BULK_TASKS, ge=1, le=MAX_BULK_TASKS, description="how many at most")
    after: Id | None = Field(default=None, description="the `next` of the answer before")
    dry_run: bool = Field(
        default=False, description="true: change nothing, only count those that are meant, as far as the limit"
    )


class CancelMany(ManyTasks):
    """Which pending and processing tasks are to be cancelled."""

    example: ClassVar[Mapping[str, Any]] = {"task_type": "io"}


class RetryMany(ManyTasks):
    """Which tasks are to be run again: failed ones, unless `status` says cancelled."""

    example: ClassVar[Mapping[str, Any]] = {"task_type": "io"}

    ended_from: Timestamp | None = Field(default=None, description="ended at this moment or later")
    ended_before: Timestamp | None = Field(default=None, description="ended before this moment")


class ManyCancelledView(View):
    """What became of the tasks that were to be cancelled."""

    cancelled: int = Field(description="with `dry_run`, how many would be")
    as_of: datetime = Field(description=f"{_AS_OF} `created_before`")
    changed: int = Field(description="had ended when their turn came")
    next: UUID | None = Field(description="send it as `after` to go on; null when none is left")


class ManyRetriedView(View):
    """What became of the tasks that were to be run again."""

    retried: int = Field(description="with `dry_run`, how many would be, unless one of the next two forbids it")
    as_of: datetime = Field(description=f"{_AS_OF} `ended_before`")
    changed: int = Field(description="were no longer failed, or cancelled, when their turn came")
    user_deleted: int = Field(description="cannot be run again: their user was deleted")
    unique_key_taken: int = Field(description="cannot be run again: a live task has their unique_key")
    next: UUID | None = Field(description="send it as `after` to go on; null when none is left")
