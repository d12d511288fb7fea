"""The figures of the task service, counted no more often than the cost of counting allows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from service_tasks.domain.distribution import BUCKETS, quantile
from service_tasks.domain.task import State, Status, public_status, states_of
from service_tasks.schemas.stats import (
    MinuteView,
    RatesView,
    TaskCountsView,
    TaskStatsView,
    ThroughputView,
    TimesView,
    TypeStatsView,
    WorkersView,
    WorkerView,
)
from servicekit.identity.reach import Reach
from servicekit.wire import deadline
from servicekit.wire.errors import Unavailable

#: the present minute and the minutes before it
WINDOW_MINUTES = 10
_RATED_MINUTES = 5
KEEP_SECONDS = 1.0
#: counting may take at most one part in this many of the time, however many requests come
_SHARE = 20
MOST_TYPES = 200
#: how long a request waits for another that is counting, in seconds
_PATIENCE_SECONDS = 2.0


class EndedAttempts(NamedTuple):
    """Ended attempts, by outcome."""

    completed: int = 0
    failed: int = 0
    retried: int = 0
    cancelled: int = 0


class Timed(NamedTuple):
    """How long attempts waited and ran, in the buckets of domain.distribution."""

    waits: list[int]
    runs: list[int]


@dataclass(frozen=True, slots=True)
class Census:
    """The number of tasks by state, and by the most frequent pairs of type and state. `oldest`: for how many seconds
    the oldest ready task of a type has been due. `estimated`: the states whose number is an estimate."""

    states: Mapping[State, int]
    types: Mapping[tuple[str, State], int]
    oldest: Mapping[str, float]
    estimated: frozenset[State]


class WorkerState(NamedTuple):
    """A worker's row. `heartbeat_age` is in seconds."""

    name: str
    task_types: Sequence[str]
    slots: int
    busy: int
    threads: int
    busy_threads: int
    started_at: datetime
    heartbeat_at: datetime
    heartbeat_age: float
    alive: bool
    leads: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures at one moment of the database's clock. `minutes` has those of the last WINDOW_MINUTES in which tasks
    ended; `types` and `timed` are for the same time. Slots and threads are those of live workers."""

    now: datetime
    census: Census
    minutes: Mapping[datetime, EndedAttempts]
    types: Mapping[str, EndedAttempts]
    timed: Mapping[str, Timed]
    workers: Sequence[WorkerState]
    alive: int
    silent: int
    slots: int
    busy: int
    threads: int
    busy_threads: int


class StatsRepository(Protocol):
    def figures(self, *, reach: Reach) -> Figures:
        """Read them, in one transaction. Those of an owner are about the newest of their tasks, without the workers'
        names."""


class Stats:
    """Thread-safe: one thread counts, and the others get its result."""

    def __init__(self, repository: StatsRepository, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._repository = repository
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._kept: TaskStatsView | None = None
        self._kept_until = 0.0

    def show(self, *, reach: Reach) -> TaskStatsView:
        """The figures, those of all perhaps a moment old. Raises `Unavailable`."""
        if reach.owner is not None:
            return _view(self._repository.figures(reach=reach))
        if not self._lock.acquire(timeout=deadline.remaining(_PATIENCE_SECONDS)):
            raise Unavailable("The tasks are being counted; try again.", retry_after=1)
        try:
            began = self._monotonic()
            if self._kept is None or began >= self._kept_until:
                self._kept = _view(self._repository.figures(reach=reach))
                ended = self._monotonic()
                self._kept_until = ended + max(KEEP_SECONDS, (ended - began) * _SHARE)
            return self._kept
        finally:
            self._lock.release()


def _view(figures: Figures) -> TaskStatsView:
    census = figures.census
    everything = Timed(
        _sum(one.waits for one in figures.timed.values()), _sum(one.runs for one in figures.timed.values())
    )
    return TaskStatsView(
        as_of=figures.now,
        counts=_counts(census.states),
        estimated=[status for status in Status if not census.estimated.isdisjoint(states_of(status))],
        oldest_ready_seconds=_seconds(max(census.oldest.values(), default=None)),
        window_seconds=WINDOW_MINUTES * 60,
        throughput=_throughput(figures),
        wait=_times(everything.waits),
        run=_times(everything.runs),
        types=_types(figures),
        workers=_workers(figures),
    )


def _counts(states: Mapping[State, int]) -> TaskCountsView:
    counts = dict.fromkeys(Status, 0)
    for state, count in states.items():
        counts[public_status(state)] += count
    return TaskCountsView.model_validate(counts)


def _throughput(figures: Figures) -> ThroughputView:
    present = figures.now.replace(second=0, microsecond=0)
    moments = [present - timedelta(minutes=back) for back in reversed(range(WINDOW_MINUTES))]
    ended = [figures.minutes.get(moment, EndedAttempts()) for moment in moments]
    whole = ended[-1 - _RATED_MINUTES : -1]
    means = (round(sum(counts) / len(whole), 2) for counts in zip(*whole, strict=True))
    return ThroughputView(
        per_minute=RatesView.model_validate(dict(zip(EndedAttempts._fields, means, strict=True))),
        minutes=[MinuteView(minute=moment, **counts._asdict()) for moment, counts in zip(moments, ended, strict=True)],
    )


def _types(figures: Figures) -> list[TypeStatsView]:
    census = figures.census
    states: dict[str, dict[State, int]] = {name: {} for name in (*figures.types, *census.oldest)}
    for (name, state), count in census.types.items():
        states.setdefault(name, {})[state] = count
    largest_first = sorted(states, key=lambda name: (-sum(states[name].values()), name))
    views = []
    for name in largest_first[:MOST_TYPES]:
        ended = figures.types.get(name, EndedAttempts())
        timed = figures.timed.get(name, Timed([], []))
        views.append(
            TypeStatsView(
                task_type=name,
                counts=_counts(states[name]),
                oldest_ready_seconds=_seconds(census.oldest.get(name)),
                completed=ended.completed,
                failed=ended.failed,
                retried=ended.retried,
                wait=_times(timed.waits),
                run=_times(timed.runs),
            )
        )
    return views


def _workers(figures: Figures) -> WorkersView:
    return WorkersView(
        alive=figures.alive,
        silent=figures.silent,
        slots=figures.slots,
        busy=figures.busy,
        threads=figures.threads,
        busy_threads=figures.busy_threads,
        workers=[
            WorkerView(
                name=one.name,
                task_types=list(one.task_types),
                alive=one.alive,
                leads=one.leads,
                slots=one.slots,
                busy=one.busy,
                threads=one.threads,
                busy_threads=one.busy_threads,
                started_at=one.started_at,
                last_beat_at=one.heartbeat_at,
                last_beat_seconds=round(max(0.0, one.heartbeat_age), 3),
            )
            for one in figures.workers
        ],
    )


def _sum(many: Iterable[Sequence[int]]) -> list[int]:
    total = [0] * BUCKETS
    for counts in many:
        for place, count in enumerate(counts):
            total[place] += count
    return total


def _times(counts: Sequence[int]) -> TimesView:
    return TimesView(p50=_seconds(quantile(counts, 0.5), 4), p95=_seconds(quantile(counts, 0.95), 4))


def _seconds(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(max(0.0, value), digits)
