"""What the engine needs from the outside world; persistence/ implements it on PostgreSQL.

Every method may raise `servicekit.wire.errors.Unavailable` when the database is away; nothing else is expected.
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
    """One worker process. `name` is for people (host and process id), `id` is new at every start."""

    id: UUID
    name: str
    task_types: tuple[str, ...]
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class Load:
    """How many tasks a worker may hold and holds, all of them and the plain functions among them."""

    slots: int
    busy: int
    threads: int
    busy_threads: int


@dataclass(frozen=True, slots=True)
class Counted:
    """Attempts of one type that ended, and in the buckets of domain.distribution how long tasks waited and ran."""

    completed: int
    failed: int
    retried: int
    waits: tuple[int, ...]
    runs: tuple[int, ...]

    def __sub__(self, other: Counted) -> Counted:
        return Counted(
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
    """A worker is free to run this type; `timeout_seconds` holds where the task names none. The limits are the type's
    own: so many of its tasks run at once on all workers together, unless people have set another limit."""

    task_type: str
    timeout_seconds: float
    max_running: int | None = None
    max_running_per_user: int | None = None

    @property
    def is_limited(self) -> bool:
        return self.max_running is not None or self.max_running_per_user is not None


@dataclass(frozen=True, slots=True)
class Promotion:
    """`next_in_seconds` is None when nothing waits for its time."""

    promoted: int
    next_in_seconds: float | None


class WorkerStore(Protocol):
    def beat(self, worker: WorkerInfo) -> None:
        """Say that the worker lives; makes its row when there is none."""

    def tell(self, worker_id: UUID, load: Load, counted: Mapping[str, Counted]) -> None:
        """Show a worker's load, and add what it has counted, by type, to the present minute."""

    def forget_worker(self, worker_id: UUID) -> None:
        """Remove the row of a worker that holds nothing any more."""

    def forget_dead_workers(self) -> int:
        """Remove rows of workers long silent that hold nothing; gives their number."""

    def claim(self, worker_id: UUID, offers: Sequence[Offer], limit: int) -> list[ClaimedTask]:
        """Take at most `limit` ready tasks, most urgent first; no other worker can get the same."""

    def limits_apply(self) -> bool:
        """Whether people have set limits: then each task that ends may let one start that a claim has left."""

    def write(self, outcomes: Collection[Outcome], worker_name: str) -> set[Lease]:
        """Write outcomes in one transaction; gives those accepted. The others came too late.

        Raises `DatabaseLocked` when somebody else keeps one of the tasks locked; that one is not written then.
        """

    def write_progress(self, reports: Collection[Progress]) -> None:
        """Write progress of tasks whose lease still holds; the others are passed over. `DatabaseLocked` as above."""

    def locked(self, leases: Collection[Lease]) -> set[Lease]:
        """Those whose tasks somebody else keeps locked at this moment."""

    def held_by(self, worker_id: UUID) -> set[Lease]:
        """What the database believes this worker is running."""

    def cancelled_under(self, worker_id: UUID) -> set[Lease]:
        """Cancelled tasks whose handler this worker has not yet reported as stopped."""

    def promote(self, limit: int) -> Promotion:
        """Make at most `limit` due tasks ready."""

    def rescue(
        self, *, lease_seconds: float, limit: int, rescuer: str, decide: Callable[[LostTask], Outcome]
    ) -> list[Outcome]:
        """Take running tasks from dead workers or far past their deadline and write what `decide` says.

        Acts only while PostgreSQL itself has been up for the lease time.
        """


class WakeUps(Protocol):
    """An open ear for what other processes announce. Used by one thread, but for `interrupt`."""

    def wait(self, seconds: float) -> list[str]:
        """The announcements that came, perhaps none, after at most `seconds`."""

    def interrupt(self) -> None:
        """From another thread: let the present `wait`, and every later one, return at once."""

    def probe(self) -> None:
        """Make sure the line still works."""

    def close(self) -> None: ...


OpenWakeUps = Callable[[], WakeUps]

READY = "ready"
SCHEDULED = "scheduled"
#: schedules were made or changed
SCHEDULES = "schedules"
_CANCEL = "cancel"


def cancel_announcement(lease: Lease) -> str:
    return f"{_CANCEL}:{lease.task_id}:{lease.number}"


def cancelled_lease(announcement: str) -> Lease | None:
    """The lease that an announcement cancels; None for every other announcement."""
    word, _, rest = announcement.partition(":")
    task_id, _, number = rest.partition(":")
    if word != _CANCEL:
        return None
    try:
        return Lease(UUID(task_id), int(number))
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Firing:
    """What one look at the schedules did. `next_in_seconds` is None when nothing is planned."""

    schedules: int
    tasks: int
    next_in_seconds: float | None


class DueStore(Protocol):
    def fire(self, limit: int, decide: Callable[[DueSchedule], Plan]) -> Firing:
        """Take at most `limit` due schedules, do what `decide` says and make their tasks, all in one transaction.

        However many do it at once, no more than one task comes of one schedule and moment.
        """


@dataclass(frozen=True, slots=True)
class Term:
    """Whether a worker leads; the leader's term, its own or the other's, ends in so many seconds unless prolonged."""

    leads: bool
    ends_in_seconds: float


class LeaderStore(Protocol):
    def lead(self, worker_id: UUID, lease_seconds: float) -> Term:
        """Become the leader if nobody is, or stay it, for so long from now by the database's clock."""

    def resign(self, worker_id: UUID) -> None:
        """Lead no longer, if this worker does."""


@dataclass(frozen=True, slots=True)
class Retention:
    """For how many seconds ended tasks, and the ids of messages, are kept; None: for ever."""

    completed_seconds: float | None
    failed_seconds: float | None
    cancelled_seconds: float | None
    messages_seconds: float | None = None

    @property
    def shortest(self) -> float | None:
        """Of the limits of tasks."""
        limits = (self.completed_seconds, self.failed_seconds, self.cancelled_seconds)
        return min((limit for limit in limits if limit is not None), default=None)


@dataclass(frozen=True, slots=True)
class Pruned:
    """One step of the pruner: of `seen` tasks, up to the id `last`, it removed some."""

    removed: int
    seen: int
    last: UUID | None


class PruneStore(Protocol):
    def prune_tasks(self, retention: Retention, *, after: UUID | None, limit: int) -> Pruned:
        """Look at the `limit` oldest tasks behind `after` and remove those kept long enough; never a live one."""

    def prune_ticks(self, *, keep_seconds: float, limit: int) -> int:
        """Remove records of runs older than that; gives their number."""

    def prune_minutes(self, *, keep_seconds: float, limit: int) -> int:
        """Remove the counts of minutes longer ago than that; gives their number."""

    def prune_messages(self, *, keep_seconds: float, limit: int) -> int:
        """Forget ids of messages older than that; gives their number."""

    def prune_rejections(self, *, most: int, limit: int) -> int:
        """Remove the oldest rejected messages of more than `most`; gives their number."""
