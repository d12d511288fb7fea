"""The use cases of schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from service_tasks.domain.cron import BadTiming
from service_tasks.domain.schedule import (
    Missed,
    ScheduleStatus,
    Timing,
    check_timing,
    next_runs,
)
from service_tasks.domain.task import USER_DELETED, USER_DISABLED, USER_WITHOUT_TASKS
from service_tasks.engine.ports import READY, SCHEDULES
from service_tasks.errors import LimitReached, ScheduleNotFound
from service_tasks.schemas.schedules import (
    ScheduleCreate,
    SchedulePage,
    ScheduleQuery,
    ScheduleUpdate,
    ScheduleView,
)
from service_tasks.schemas.tasks import TaskCreate, TaskView
from service_tasks.use_cases.tasks import NewTask, Tasks
from servicekit.identity.reach import Reach
from servicekit.process.ids import new_id
from servicekit.web.preconditions import ANY_STATE, IfMatch
from servicekit.wire.envelope import Written
from servicekit.wire.errors import Invalid
from servicekit.wire.json_reader import read_stored

_DEFAULT_TIMEZONE = "UTC"
_TASK_FIELDS = ("task_type", "payload", "title", "user_id", "priority", "max_attempts", "timeout", "callback_url")
_TASK_COLUMNS = tuple("timeout_seconds" if name == "timeout" else name for name in _TASK_FIELDS)
_KINDS = ("cron", "every", "at")


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """A schedule about to be stored. `payload` is JSON text."""

    id: UUID
    name: str
    task_type: str
    title: str | None
    user_id: UUID | None
    payload: str | None
    priority: int
    max_attempts: int
    timeout_seconds: float | None
    callback_url: str | None
    missed: Missed
    next_run_at: datetime | None
    timing: Timing

    def new_task(self, task_id: UUID) -> NewTask:
        """The task of one run; the payload must be there."""
        return NewTask(id=task_id, execute_at=None, **{name: getattr(self, name) for name in _TASK_COLUMNS})


@dataclass(frozen=True, slots=True)
class StoredSchedule(NewSchedule):
    """A stored schedule. `payload` is None where a list omits a large one; `now` is the database's clock at the time of
    reading."""

    paused_at: datetime | None
    problem: str | None
    last_run_at: datetime | None
    last_task_id: UUID | None
    created_at: datetime
    updated_at: datetime
    now: datetime

    @property
    def stopped_by_its_timing(self) -> bool:
        """Whether new times would let it go on."""
        return self.problem not in (None, USER_DELETED, USER_DISABLED, USER_WITHOUT_TASKS)

    @property
    def status(self) -> ScheduleStatus:
        if self.paused_at is not None:
            return ScheduleStatus.PAUSED
        return ScheduleStatus.FINISHED if self.next_run_at is None else ScheduleStatus.ACTIVE


@dataclass(frozen=True, slots=True)
class ScheduleSelection:
    """Which schedules a list shows; None: any. `after` skips that id and all newer ones."""

    status: str | None
    task_type: str | None
    user_id: UUID | None
    after: UUID | None
    limit: int
    offset: int


#: Raises `LimitReached` if so many schedules in all, or so many of the user, leave no room for one more of the user.
RequireRoom = Callable[[int, int], None]


class ScheduleRepository(Protocol):
    """What the use cases need from the database. Each method is one transaction; an exception of a function passed to
    it rolls that back. Methods that write a name may raise `ScheduleNameTaken`, those after which a schedule could make
    a task `UserDeleted`."""

    def add(self, make: Callable[[datetime], NewSchedule], require_room: RequireRoom) -> StoredSchedule:
        """Store the schedule that `make` returns for the present time, if there is room for it."""

    def get(self, schedule_id: UUID, *, reach: Reach) -> StoredSchedule | None: ...

    def search(self, selection: ScheduleSelection, *, reach: Reach) -> tuple[list[StoredSchedule], int]:
        """The selected page, newest first, and how many schedules there are in all."""

    def change(
        self,
        schedule_id: UUID,
        decide: Callable[[StoredSchedule], StoredSchedule],
        require_room: RequireRoom,
        *,
        reach: Reach,
    ) -> StoredSchedule | None:
        """Store what `decide` makes of a schedule, which is locked meanwhile; None if there is none. Another user must
        have room for it."""

    def delete(
        self, schedule_id: UUID, check: Callable[[StoredSchedule], None], *, reach: Reach
    ) -> StoredSchedule | None:
        """Remove a schedule, locked meanwhile, if `check` does not raise; None if there is none."""

    def run_now(self, schedule_id: UUID, *, reach: Reach) -> UUID | None:
        """Make one of its tasks at once and return the id; None if there is no such schedule."""


class Schedules:
    """`announce` tells workers that schedules changed or a task is ready; it must neither block nor raise. There may be
    `limit` schedules, and `limit_per_user` of one user."""

    def __init__(
        self,
        repository: ScheduleRepository,
        tasks: Tasks,
        *,
        announce: Callable[[str], None],
        limit: int,
        limit_per_user: int,
    ) -> None:
        self._repository = repository
        self._tasks = tasks
        self._announce = announce
        self._limit = limit
        self._limit_per_user = limit_per_user

    def create(self, body: ScheduleCreate, *, reach: Reach) -> ScheduleView:
        """Raises `Invalid`, `Forbidden`, `PayloadTooLarge`, `ScheduleNameTaken` and `LimitReached`."""
        wanted = TaskCreate(**{name: getattr(body, name) for name in _TASK_FIELDS})
        task = self._tasks.prepare(wanted, reach=reach)

        def make(now: datetime) -> NewSchedule:
            timing = Timing(
                cron=body.cron,
                timezone=body.timezone or (None if body.cron is None else _DEFAULT_TIMEZONE),
                every_seconds=body.every,
                at=body.at,
                anchor=now,
                starts_at=body.starts_at,
                ends_at=body.ends_at,
            )
            return NewSchedule(
                id=new_id(),
                name=body.name,
                **_task_values(task),
                missed=Missed(body.missed),
                next_run_at=check_timing(timing, now),
                timing=timing,
            )

        with _fields_named():
            stored = self._repository.add(make, self._require_room)
        self._announce(SCHEDULES)
        return _view_of(stored)

    def get(self, schedule_id: UUID, *, reach: Reach) -> ScheduleView:
        return _view_of(_found(self._repository.get(schedule_id, reach=reach)))

    def search(self, query: ScheduleQuery, *, reach: Reach) -> SchedulePage:
        found, total = self._repository.search(
            ScheduleSelection(
                status=query.status,
                task_type=query.task_type,
                user_id=query.user_id,
                after=query.after,
                limit=query.limit + 1,
                offset=query.offset,
            ),
            reach=reach,
        )
        page = found[: query.limit]
        return SchedulePage(
            schedules=[_view_of(schedule) for schedule in page],
            total=total,
            limit=query.limit,
            offset=query.offset,
            next=page[-1].id if len(found) > len(page) else None,
        )

    def update(
        self, schedule_id: UUID, body: ScheduleUpdate, if_match: IfMatch = ANY_STATE, *, reach: Reach
    ) -> ScheduleView:
        """Raises `ScheduleNotFound`, `PreconditionFailed`, `Invalid`, `Forbidden`, `PayloadTooLarge`,
        `ScheduleNameTaken`, `LimitReached`."""
        named = body.named()

        def decide(present: StoredSchedule) -> StoredSchedule:
            view = _view_of(present)
            if_match.require(view)
            body.require_unchanged(view)
            wanted = present
            if not named.keys().isdisjoint(_TASK_FIELDS):
                wanted = replace(wanted, **_task_values(self._tasks.prepare(_task_of(present, named), reach=reach)))
            wanted = replace(
                wanted, name=named.get("name", present.name), missed=Missed(named.get("missed", present.missed))
            )
            timing = _changed_timing(present, named)
            if timing == present.timing:
                return wanted
            first = check_timing(timing, present.now)
            if present.paused_at is None or present.stopped_by_its_timing:
                return replace(wanted, timing=timing, next_run_at=first, paused_at=None, problem=None)
            return replace(wanted, timing=timing)

        return self._change(schedule_id, decide, reach)

    def pause(self, schedule_id: UUID, *, reach: Reach) -> ScheduleView:
        """No effect on a paused schedule."""

        def decide(present: StoredSchedule) -> StoredSchedule:
            if present.paused_at is not None:
                return present
            return replace(present, paused_at=present.now, next_run_at=None)

        return self._change(schedule_id, decide, reach)

    def resume(self, schedule_id: UUID, *, reach: Reach) -> ScheduleView:
        """Go on from now; runs during the pause are not made up for."""

        def decide(present: StoredSchedule) -> StoredSchedule:
            if present.paused_at is None:
                return present
            return replace(present, paused_at=None, next_run_at=present.timing.following(present.now), problem=None)

        return self._change(schedule_id, decide, reach)

    def delete(self, schedule_id: UUID, if_match: IfMatch = ANY_STATE, *, reach: Reach) -> ScheduleView:
        """The tasks it has made stay. Raises `ScheduleNotFound` and `PreconditionFailed`."""
        gone = self._repository.delete(schedule_id, lambda present: if_match.require(_view_of(present)), reach=reach)
        return _view_of(_found(gone))

    def run_now(self, schedule_id: UUID, *, reach: Reach) -> TaskView:
        """Make a task at once, whatever the status; the planned runs stay."""
        task_id = self._repository.run_now(schedule_id, reach=reach)
        if task_id is None:
            raise ScheduleNotFound
        self._announce(READY)
        return self._tasks.get(task_id, reach=reach)

    def _require_room(self, in_all: int, of_user: int) -> None:
        if of_user >= self._limit_per_user:
            raise LimitReached(
                f"This user has {of_user} schedules; SCHEDULES_LIMIT_PER_USER allows {self._limit_per_user}."
            )
        if in_all >= self._limit:
            raise LimitReached(f"There are {in_all} schedules; SCHEDULES_LIMIT allows {self._limit}.")

    def _change(
        self, schedule_id: UUID, decide: Callable[[StoredSchedule], StoredSchedule], reach: Reach
    ) -> ScheduleView:
        with _fields_named():
            stored = _found(self._repository.change(schedule_id, decide, self._require_room, reach=reach))
        self._announce(SCHEDULES)
        return _view_of(stored)


def _found(schedule: StoredSchedule | None) -> StoredSchedule:
    if schedule is None:
        raise ScheduleNotFound
    return schedule


@contextmanager
def _fields_named() -> Iterator[None]:
    try:
        yield
    except BadTiming as exc:
        raise Invalid.field(exc.field, exc.message) from exc


def _task_values(task: NewTask) -> dict[str, Any]:
    return {name: getattr(task, name) for name in _TASK_COLUMNS}


def _task_of(schedule: StoredSchedule, named: Mapping[str, Any]) -> TaskCreate:
    present = {field: getattr(schedule, name) for field, name in zip(_TASK_FIELDS, _TASK_COLUMNS, strict=True)}
    present["payload"] = _json(schedule.payload)
    return TaskCreate(**{name: named.get(name, value) for name, value in present.items()})


def _changed_timing(schedule: StoredSchedule, named: Mapping[str, Any]) -> Timing:
    """The timing after a change. A named kind replaces the present one; an interval is counted anew only if it
    changes."""
    present = schedule.timing
    kinds: dict[str, Any] = {"cron": present.cron, "every": present.every_seconds, "at": present.at}
    if any(named.get(kind) is not None for kind in _KINDS):
        kinds = dict.fromkeys(_KINDS)
    kinds.update({kind: named[kind] for kind in _KINDS if kind in named})
    timezone = named.get("timezone", present.timezone if kinds["cron"] is not None else None)
    if timezone is None and kinds["cron"] is not None:
        timezone = _DEFAULT_TIMEZONE
    return Timing(
        cron=kinds["cron"],
        timezone=timezone,
        every_seconds=kinds["every"],
        at=kinds["at"],
        anchor=present.anchor if kinds["every"] == present.every_seconds else schedule.now,
        starts_at=named.get("starts_at", present.starts_at),
        ends_at=named.get("ends_at", present.ends_at),
    )


def _json(text: str | None) -> Any:
    return None if text is None else read_stored(text)


def _view_of(schedule: StoredSchedule) -> ScheduleView:
    timing = schedule.timing
    problem = schedule.problem
    runs: tuple[datetime, ...] = ()
    try:
        runs = next_runs(timing, schedule.next_run_at)
    except BadTiming as exc:
        # The time zone is gone; the scheduler will find the same.
        problem = str(exc)
    return ScheduleView(
        id=schedule.id,
        name=schedule.name,
        status=schedule.status.value,
        task_type=schedule.task_type,
        payload=None if schedule.payload is None else Written(schedule.payload),
        title=schedule.title,
        user_id=schedule.user_id,
        priority=schedule.priority,
        max_attempts=schedule.max_attempts,
        timeout=schedule.timeout_seconds,
        callback_url=schedule.callback_url,
        cron=timing.cron,
        timezone=timing.timezone,
        every=timing.every_seconds,
        at=timing.at,
        starts_at=timing.starts_at,
        ends_at=timing.ends_at,
        missed=schedule.missed.value,
        next_runs=list(runs),
        last_run_at=schedule.last_run_at,
        last_task_id=schedule.last_task_id,
        problem=problem,
        created_at=schedule.created_at,
        updated_at=schedule.updated_at,
        omitted=[] if schedule.payload is not None else ["payload"],
    )
