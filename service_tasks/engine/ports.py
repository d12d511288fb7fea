"""The interfaces that the engine needs; persistence/ implements them on PostgreSQL.

Every method may raise `servicekit.wire.errors.Unavailable` when the database is away, and nothing else unless stated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import sub
from typing import Protocol
from uuid import UUID

from service_tasks.domain.schedule import DueSchedule, Plan
from service_tasks.domain.task import ClaimedTask, Lease, LostTask, Outcome, Progress


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One worker process. `name` is for display (host and process id); `id` is new at every start."""

    id: UUID
    name: str
    task_types: tuple[str, ...]
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class Load:
    """How many tasks a worker may hold and does hold, in all and of plain functions."""

    slots: int
    busy: int
    threads: int
    busy_threads: int


@dataclass(frozen=True, slots=True)
class AttemptCounts:
    """Ended attempts of one type, and how long tasks waited and ran, in the buckets of domain.distribution."""

    completed: int
    failed: int
    retried: int
    waits: tuple[int, ...]
    runs: tuple[int, ...]

    def __sub__(self, other: AttemptCounts) -> AttemptCounts:
        return AttemptCounts(
            self.completed - other.completed,
            self.failed - other.failed,
            self.retried - other.retried,
            tuple(map(sub, self.waits, other.waits)),
            tuple(map(sub, self.runs, other.runs)),
        )

    def __bool__(self) -> bool:
        return bool(self.completed or self.failed or self.retried or any(self.waits) or any(self.runs))


@dataclass(frozen=True, slots=True)
class Offer:
    """A worker has room for this type; `timeout_seconds` is for tasks that name none. The limits bound how many of the
    type's tasks run at once over all workers; limits set by an operator take precedence."""

    task_type: str
    timeout_seconds: float
    max_running: int | None = None
    max_running_per_user: int | None = None

    @property
    def is_limited(self) -> bool:
        return self.max_running is not None or self.max_running_per_user is not None


@dataclass(frozen=True, slots=True)
class Promotion:
    """`next_in_seconds` is None if no task waits for its time."""

    promoted: int
    next_in_seconds: float | None


class WorkerStore(Protocol):
    def beat(self, worker: WorkerInfo) -> None:
        """Record that the worker is alive; insert its row if there is none."""

    def report_load(self, worker_id: UUID, load: Load, counted: Mapping[str, AttemptCounts]) -> None:
        """Store a worker's load, and add what it has counted, by type, to the present minute."""

    def forget_worker(self, worker_id: UUID) -> None:
        """Delete the row of a worker that holds nothing."""

    def forget_dead_workers(self) -> int:
        """Delete the rows of long-silent workers that hold nothing; return how many."""

    def claim(self, worker_id: UUID, offers: Sequence[Offer], limit: int) -> list[ClaimedTask]:
        """Claim at most `limit` ready tasks, most urgent first; no other worker can get the same."""

    def limits_apply(self) -> bool:
        """Whether operators have set limits: then each end of a task may make room for one that a claim skipped."""

    def write(self, outcomes: Collection[Outcome], worker_name: str) -> set[Lease]:
        """Write outcomes in one transaction; return the leases accepted. The others came too late.

        Raises `DatabaseLocked` when another session keeps one of the tasks locked; that one is not written then.
        """

    def write_progress(self, reports: Collection[Progress]) -> None:
        """Write the progress of tasks whose lease still holds; skip the others. `DatabaseLocked` as above."""

    def locked(self, leases: Collection[Lease]) -> set[Lease]:
        """Return the leases whose tasks another session has locked now."""

    def held_by(self, worker_id: UUID) -> set[Lease]:
        """Return the leases that this worker holds according to the database."""

    def cancelled_under(self, worker_id: UUID) -> set[Lease]:
        """Return the cancelled tasks whose handler this worker has not yet reported as stopped."""

    def promote(self, limit: int) -> Promotion:
        """Make at most `limit` due tasks ready."""

    def rescue(
        self, *, lease_seconds: float, limit: int, rescuer: str, decide: Callable[[LostTask], Outcome]
    ) -> list[Outcome]:
        """Take running tasks whose worker is dead or that are far past their deadline; write the outcomes of `decide`.

        Does nothing until PostgreSQL itself has been up for the lease time.
        """


class WakeUps(Protocol):
    """A connection that listens to announcements. Only one thread uses it, except for `interrupt`."""

    def wait(self, seconds: float) -> list[str]:
        """Return the announcements, perhaps none, after at most `seconds`."""

    def interrupt(self) -> None:
        """Make this and every later `wait` return at once; call it from another thread."""

    def probe(self) -> None:
        """Make sure that the connection still works."""

    def close(self) -> None: ...


OpenWakeUps = Callable[[], WakeUps]

#: The least time between two announcements of a process, in seconds.
ANNOUNCE_SECONDS = 0.05
READY = "ready"
SCHEDULED = "scheduled"
#: announces that schedules were made or changed
SCHEDULES = "schedules"
_CANCEL = "cancel"


def cancel_announcement(lease: Lease) -> str:
    return f"{_CANCEL}:{lease.task_id}:{lease.number}"


def cancelled_lease(announcement: str) -> Lease | None:
    """The lease that an announcement cancels; None for every other announcement."""
    kind, _, rest = announcement.partition(":")
    task_id, _, number = rest.partition(":")
    if kind != _CANCEL:
        return None
    try:
        return Lease(UUID(task_id), int(number))
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Firing:
    """The result of one pass over the schedules. `next_in_seconds` is None if nothing is planned."""

    schedules: int
    tasks: int
    next_in_seconds: float | None


class DueStore(Protocol):
    def fire(self, limit: int, decide: Callable[[DueSchedule], Plan]) -> Firing:
        """In one transaction, take at most `limit` due schedules, apply the plans of `decide` and make their tasks.

        However many callers do this at once, a schedule makes at most one task for one moment.
        """


@dataclass(frozen=True, slots=True)
class Term:
    """Whether a worker leads, and in how many seconds the leader's term ends unless renewed."""

    leads: bool
    ends_in_seconds: float


class LeaderStore(Protocol):
    def lead(self, worker_id: UUID, lease_seconds: float) -> Term:
        """Become or stay the leader, if no other worker is, for `lease_seconds` by the database's clock."""

    def resign(self, worker_id: UUID) -> None:
        """Stop leading, if this worker leads."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long ended tasks and ids of messages are kept, in seconds; None: for ever."""

    completed_seconds: float | None
    failed_seconds: float | None
    cancelled_seconds: float | None
    messages_seconds: float | None = None

    @property
    def shortest(self) -> float | None:
        """The shortest of the tasks' limits."""
        limits = (self.completed_seconds, self.failed_seconds, self.cancelled_seconds)
        return min((limit for limit in limits if limit is not None), default=None)


@dataclass(frozen=True, slots=True)
class Pruned:
    """One step of the pruner over `seen` tasks, up to the id `last`."""

    removed: int
    seen: int
    last: UUID | None


class PruneStore(Protocol):
    def prune_tasks(self, retention: Retention, *, after: UUID | None, limit: int) -> Pruned:
        """Of the `limit` oldest tasks after the id `after`, delete those kept long enough; never a live one."""

    def prune_ticks(self, *, keep_seconds: float, limit: int) -> int:
        """Delete records of runs older than that; return how many."""

    def prune_minutes(self, *, keep_seconds: float, limit: int) -> int:
        """Delete the counts of minutes older than that; return how many."""

    def prune_messages(self, *, keep_seconds: float, limit: int) -> int:
        """Delete ids of messages older than that; return how many."""

    def prune_rejections(self, *, most: int, limit: int) -> int:
        """Delete the oldest rejected messages beyond `most`; return how many."""
