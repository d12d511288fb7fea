"""Tasks: their states and limits, and the outcomes of an attempt. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

MAX_TASK_TYPE_CHARACTERS = 50
MAX_TITLE_CHARACTERS = 200
MAX_PAYLOAD_BYTES = 256 * 1024
MAX_RESULT_BYTES = 1024 * 1024
MAX_UNIQUE_KEY_CHARACTERS = 200
MAX_BATCH_TASKS = 10_000
MAX_ERROR_CHARACTERS = 2000
MAX_TRACE_CHARACTERS = 8192
MAX_PROGRESS_MESSAGE_CHARACTERS = 200
MAX_KEPT_ERRORS = 50
MAX_ATTEMPTS_LIMIT = 25
DEFAULT_MAX_ATTEMPTS = 3
MAX_PRIORITY = 100
DEFAULT_PRIORITY = 50
MAX_TIMEOUT_SECONDS = 86_400
#: why a task ended, or a schedule is paused, once its user was deleted, may not log in any more, or may run none
USER_DELETED = "the user was deleted"
USER_DISABLED = "the user was disabled"
USER_WITHOUT_TASKS = "the user's roles permit no tasks"


class Status(StrEnum):
    """The status that clients see."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class State(StrEnum):
    """The state in the table. A future task waits as `scheduled`, apart from `ready`, so that a million of them cost
    the claim nothing; clients see both as pending."""

    SCHEDULED = "scheduled"
    READY = "ready"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Obstacle(StrEnum):
    """Why a pending task cannot start."""

    PAUSED = "paused"
    NO_WORKER = "no_worker"
    SUSPECT = "suspect"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.SCHEDULED: frozenset({State.READY, State.CANCELLED}),
    State.READY: frozenset({State.RUNNING, State.CANCELLED}),
    State.RUNNING: frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.SCHEDULED, State.READY}),
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset({State.READY}),
    State.CANCELLED: frozenset({State.READY}),
}

FIRST_STATES = frozenset({State.SCHEDULED, State.READY})
LIVE_STATES = frozenset({State.SCHEDULED, State.READY, State.RUNNING})
ENDED_STATES = frozenset(State) - LIVE_STATES
RETRYABLE_STATES = frozenset({State.FAILED, State.CANCELLED})

_STATUS_OF: dict[State, Status] = {
    State.SCHEDULED: Status.PENDING,
    State.READY: Status.PENDING,
    State.RUNNING: Status.PROCESSING,
    State.COMPLETED: Status.COMPLETED,
    State.FAILED: Status.FAILED,
    State.CANCELLED: Status.CANCELLED,
}

# Synonyms in other task services; the list filter accepts them in any case.
_STATUS_NAMES: dict[str, Status] = {
    "new": Status.PENDING,
    "pending": Status.PENDING,
    "scheduled": Status.PENDING,
    "in progress": Status.PROCESSING,
    "processing": Status.PROCESSING,
    "running": Status.PROCESSING,
    "done": Status.COMPLETED,
    "completed": Status.COMPLETED,
    "failed": Status.FAILED,
    "cancelled": Status.CANCELLED,
    "canceled": Status.CANCELLED,
}


def public_status(state: State) -> Status:
    return _STATUS_OF[state]


def states_of(status: Status) -> tuple[State, ...]:
    return tuple(state for state in State if _STATUS_OF[state] is status)


def status_named(name: str) -> Status | None:
    """The status that a filter names: `In Progress`, `in_progress` and `IN-PROGRESS` are the same."""
    return _STATUS_NAMES.get(" ".join(name.lower().replace("_", " ").replace("-", " ").split()))


def status_names() -> tuple[str, ...]:
    return tuple(_STATUS_NAMES)


class _LeaseParts(NamedTuple):
    #: the task's id in its usual text form, which sorts as the ids do
    key: str
    number: int


class Lease(_LeaseParts):
    """The right to write a task's outcome. `number` grows with every claim, so a late result carries an outdated number
    and is refused. (`attempt` would not do: handing a task back restores it, and a retry by hand resets it.)

    A tuple of text and number, since a worker makes, hashes and compares tens of thousands a second.
    """

    __slots__ = ()

    def __new__(cls, task_id: UUID | str, number: int) -> Lease:
        """An id given as text must be in the usual form, in lower case."""
        return tuple.__new__(cls, (str(task_id), number))

    @property
    def task_id(self) -> UUID:
        return UUID(self.key)


class ClaimedTask(NamedTuple):
    """A task claimed by a worker. `payload` is JSON text; `claimed_at` is the database's clock."""

    lease: Lease
    task_type: str
    payload: str
    attempt: int
    max_attempts: int
    timeout_seconds: float
    claimed_at: datetime
    #: from when it was due to the claim, by the database's clock
    waited_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LostTask:
    """A running task taken from a worker that fell silent or (`overdue`) let its deadline pass. `lost_at` is the
    database's clock. `suspects`: how many tasks, this one included, the last worker to die with it held. `company`: how
    many tasks of the present worker had as many suspects or fewer, this one included."""

    lease: Lease
    attempt: int
    max_attempts: int
    overdue: bool
    lost_at: datetime
    task_type: str
    worker_id: UUID
    suspects: int | None = None
    company: int = 1


@dataclass(frozen=True, slots=True)
class AttemptError:
    """Why an attempt failed, as shown to clients: a type and a message. `trace`, the end of the traceback, is shown
    only on request."""

    type: str
    message: str
    trace: str | None = None

    @classmethod
    def of(cls, error: BaseException, trace: str | None = None) -> AttemptError:
        name = plain_text(type.__dict__["__name__"].__get__(type(error)), 100)
        try:
            # `__str__` may return an instance of a subclass of str.
            message = plain_text("".join((str(error), "")), MAX_ERROR_CHARACTERS)
        except BaseException:  # a foreign __str__ may fail in any way, and the attempt must be recorded
            message = ""
        return cls(name, message or name, trace)


@dataclass(frozen=True, slots=True)
class Succeeded:
    """`result` is JSON text."""

    lease: Lease
    result: str


@dataclass(frozen=True, slots=True)
class WillRetry:
    """`suspects`: one of this many tasks ended their worker; if more than one, each gets its attempt back."""

    lease: Lease
    at: datetime
    error: AttemptError
    suspects: int | None = None


@dataclass(frozen=True, slots=True)
class FailedForGood:
    lease: Lease
    error: AttemptError


@dataclass(frozen=True, slots=True)
class HandedBack:
    """Not finished, through no fault of the task: ready again at once, the attempt not counted."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class StoppedAfterCancel:
    """The handler of a cancelled task has ended; its row need no longer name the worker."""

    lease: Lease


Outcome = Succeeded | WillRetry | FailedForGood | HandedBack | StoppedAfterCancel


@dataclass(frozen=True, slots=True)
class Progress:
    lease: Lease
    percent: int
    message: str | None


def clamp_percent(percent: float) -> int:
    """A whole number from 0 to 100; NaN counts as 0."""
    if percent != percent:
        return 0
    return int(max(0.0, min(100.0, float(percent))))


def plain_text(text: str, limit: int) -> str:
    """Text that PostgreSQL can hold: no NUL, no lone surrogate, at most `limit` characters."""
    # Truncated first: it may be a thousand times too long.
    clean = text[: limit + 1].replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
