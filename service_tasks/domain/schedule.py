"""When a schedule runs: cron in a time zone, an interval, or one date. No I/O but time zone data, no clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from functools import cache, lru_cache
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

from service_tasks.domain.cron import BadTiming, read_cron

MAX_SCHEDULE_NAME_CHARACTERS = 100
MAX_TIMEZONE_CHARACTERS = 64
MIN_INTERVAL_SECONDS = 1
MAX_INTERVAL_SECONDS = 366 * 86_400
#: `run_all` makes up for at most this many missed runs, the newest
MAX_RUNS_AT_ONCE = 100
#: `skip` leaves out a run that is late by more than this many seconds
LATE_SECONDS = 60
NEXT_RUNS_SHOWN = 5

_MOMENT = timedelta(microseconds=1)


class Missed(StrEnum):
    """What to do about runs whose time passed while no worker was there."""

    SKIP = "skip"
    RUN_ONCE = "run_once"
    RUN_ALL = "run_all"


class ScheduleStatus(StrEnum):
    """The status that clients see."""

    ACTIVE = "active"
    PAUSED = "paused"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Timing:
    """When a schedule runs. Exactly one of `cron`, `every_seconds` and `at` is set; `timezone` belongs to `cron`.

    An interval counts from `starts_at`, with a run at that moment, or without it from `anchor`.
    Nothing runs before `starts_at` or after `ends_at`.
    """

    cron: str | None
    timezone: str | None
    every_seconds: int | None
    at: datetime | None
    anchor: datetime
    starts_at: datetime | None = None
    ends_at: datetime | None = None

    def following(self, after: datetime) -> datetime | None:
        """The first run later than `after`, in UTC; None if there is none (for cron: in the next 50 years).

        Raises `BadTiming` if the expression or the time zone cannot be read.
        """
        if self.at is not None:
            return self.at if self.at > after else None
        if self.starts_at is not None and after < self.starts_at:
            # A run at exactly that moment counts.
            after = self.starts_at - _MOMENT
        if self.cron is None:
            run: datetime | None = self._next_interval(after)
        else:
            run = read_cron(self.cron).following(read_timezone(self.timezone or "UTC"), after)
        return None if run is None or (self.ends_at is not None and run > self.ends_at) else run

    def latest(self, not_before: datetime, until: datetime) -> datetime | None:
        """The last run from `not_before` to `until`, both included; None if there is none."""
        found = self.following(not_before - _MOMENT)
        if found is None or found > until:
            return None
        # Nothing runs after `high`; runs are at least a second apart.
        high = until
        while high - found >= timedelta(seconds=1):
            middle = found + (high - found) / 2
            run = self.following(middle)
            if run is None or run > until:
                high = middle
            else:
                found = run
        return found

    def _next_interval(self, after: datetime) -> datetime:
        assert self.every_seconds is not None
        step = timedelta(seconds=self.every_seconds)
        origin = self.starts_at or self.anchor
        count = (after - origin) // step + 1
        return origin + step * max(count, 0 if self.starts_at is not None else 1)


@dataclass(frozen=True, slots=True)
class DueSchedule:
    """A schedule due since `due_at`; `now` is the database's clock."""

    id: UUID
    name: str
    timing: Timing
    missed: Missed
    due_at: datetime
    now: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with a due schedule: the times to run for, oldest first, and when it is due again.

    `problem` says why it cannot go on.
    """

    runs: tuple[datetime, ...]
    next_run_at: datetime | None
    problem: str | None = None


def plan_of(schedule: DueSchedule) -> Plan:
    """Decide what a due schedule does. It pauses if its times cannot be computed, its time zone being gone."""
    try:
        return _plan(schedule.timing, schedule.due_at, schedule.now, schedule.missed)
    except BadTiming as exc:
        return Plan((), None, str(exc))
    except Exception as exc:  # whatever is wrong with it, other schedules go on
        return Plan((), None, f"its times cannot be told: {type(exc).__name__}")


def _plan(timing: Timing, due_at: datetime, now: datetime, missed: Missed) -> Plan:
    following = timing.following(now)
    newest = timing.latest(due_at, now) or due_at
    if missed is Missed.SKIP:
        runs = [newest] if now - newest <= timedelta(seconds=LATE_SECONDS) else []
    elif missed is Missed.RUN_ONCE:
        runs = [newest]
    else:
        runs = [newest]
        while len(runs) < MAX_RUNS_AT_ONCE:
            older = timing.latest(due_at, runs[-1] - _MOMENT)
            if older is None:
                break
            runs.append(older)
        runs.reverse()
    return Plan(tuple(runs), following)


@lru_cache(maxsize=4096)
def next_runs(timing: Timing, first: datetime | None, count: int = NEXT_RUNS_SHOWN) -> tuple[datetime, ...]:
    """`first`, a future run, and those after it. Raises `BadTiming`."""
    runs: list[datetime] = []
    while first is not None and len(runs) < count:
        runs.append(first)
        first = timing.following(first)
    return tuple(runs)


def check_timing(timing: Timing, now: datetime) -> datetime:
    """Return the first run after `now`. Raises `BadTiming` if the timing is invalid or would never run."""
    kinds = (("cron", timing.cron), ("every", timing.every_seconds), ("at", timing.at))
    given = [name for name, value in kinds if value is not None]
    if len(given) != 1:
        raise BadTiming(given[1] if given else "cron", "exactly one of cron, every and at must be given")
    if timing.at is not None:
        for field, moment in (("starts_at", timing.starts_at), ("ends_at", timing.ends_at)):
            if moment is not None:
                raise BadTiming(field, "has no meaning with at")
    if timing.timezone is not None and timing.cron is None:
        raise BadTiming("timezone", "has a meaning with cron only")
    if timing.starts_at is not None and timing.ends_at is not None and timing.starts_at > timing.ends_at:
        raise BadTiming("ends_at", "must not be before starts_at")
    first = timing.following(now)
    if first is not None:
        return first
    if timing.at is not None:
        raise BadTiming("at", "must be in the future")
    if timing.ends_at is not None and replace(timing, ends_at=None).following(now) is not None:
        raise BadTiming("ends_at", "nothing would run before it")
    raise BadTiming("cron", "never comes")


@cache
def _known_timezones() -> frozenset[str]:
    # Some systems list the machine's own zone under these names, which mean another time on another machine.
    return frozenset(available_timezones()) - {"localtime", "Factory"}


def read_timezone(name: str) -> tzinfo:
    """A zone of the IANA database by its exact name. Raises `BadTiming`."""
    if name == "UTC":
        return UTC
    if name not in _known_timezones():
        raise BadTiming("timezone", "must be a time zone of the IANA database, such as Europe/Berlin")
    return ZoneInfo(name)
