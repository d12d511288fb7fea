"""Response bodies of the task service's figures."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from service_tasks.domain.task import Status
from servicekit.web.schemas import View


class TaskCountsView(View):
    """How many tasks there are of each status."""

    pending: int
    processing: int
    completed: int
    failed: int
    cancelled: int


class TimesView(View):
    """Of attempts in the window, in seconds, right to a factor of two; null when there were none."""

    p50: float | None
    p95: float | None


class TypeStatsView(View):
    """How one type stands."""

    task_type: str
    counts: TaskCountsView
    oldest_ready_seconds: float | None = Field(description="how long the oldest ready task has been due")
    completed: int = Field(description="attempts that ended so in the window, as are the next two")
    failed: int
    retried: int
    wait: TimesView = Field(description="from the moment a task was due to its start")
    run: TimesView


class MinuteView(View):
    """What ended in one minute."""

    minute: datetime = Field(description="when it began")
    completed: int
    failed: int
    retried: int = Field(description="attempts that failed and are made again")
    cancelled: int


class RatesView(View):
    """Each minute, on average."""

    completed: float
    failed: float
    retried: float
    cancelled: float


class ThroughputView(View):
    """What ended in the last minutes."""

    per_minute: RatesView = Field(description="over the last five whole minutes")
    minutes: list[MinuteView] = Field(description="of the window, the oldest first; the last is not over yet")


class WorkerView(View):
    """One worker process."""

    name: str
    task_types: list[str]
    alive: bool = Field(description="heard of within its lease")
    leads: bool = Field(description="does the maintenance for all")
    slots: int = Field(description="tasks that it may hold")
    busy: int = Field(description="tasks that it held at its last beat")
    threads: int = Field(description="plain functions among them")
    busy_threads: int
    started_at: datetime
    last_beat_at: datetime
    last_beat_seconds: float = Field(description="how long ago that was")


class WorkersView(View):
    """All workers; slots and threads of those alive."""

    alive: int
    silent: int
    slots: int
    busy: int
    threads: int
    busy_threads: int
    workers: list[WorkerView] = Field(description="at most a thousand")


class TaskStatsView(View):
    """How the task service stands.

    Counts are exact while the table is small (32 MB, some 60,000 tasks); beyond that up to 2,000 tasks of a status are
    counted by an index, and more are estimated from 250 pages. The workers count throughput, wait and run, and report
    them with their heartbeats: a killed worker's unreported counts are lost. Of more than 2,000 ready tasks
    the oldest is looked for among the first 500 of each type.
    """

    as_of: datetime = Field(
        description="a short while ago: the figures are kept for a second, or longer if they cost more"
    )
    counts: TaskCountsView
    estimated: list[Status] = Field(
        description="statuses whose counts are estimated from a sample of the table, here and by type"
    )
    oldest_ready_seconds: float | None = Field(
        description="how long the oldest ready task has been due; null when none is ready"
    )
    window_seconds: int = Field(description="the time that throughput, wait and run are about")
    throughput: ThroughputView
    wait: TimesView = Field(description="from the moment a task was due to its start")
    run: TimesView
    types: list[TypeStatsView] = Field(description="at most 200, those with the most tasks first")
    workers: WorkersView
