"""Turns messages into tasks, or into rejections that operators can requeue once the cause is fixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Protocol
from uuid import UUID

from service_tasks.engine.ports import READY, SCHEDULED
from service_tasks.errors import MessageIncomplete, MessageNotFound
from service_tasks.schemas.messages import (
    MessageFault,
    RejectedMessagePage,
    RejectedMessageQuery,
    RejectedMessageView,
    TaskMessage,
)
from service_tasks.schemas.tasks import TaskView
from service_tasks.use_cases.tasks import NewTask, PastExecuteAt, Tasks
from servicekit.identity.reach import Reach
from servicekit.observing.logs import get_logger
from servicekit.process.ids import new_id
from servicekit.web.schemas import parse_body
from servicekit.wire.errors import AppError, FieldError, Invalid

MAX_MESSAGE_BYTES = 1024 * 1024
#: how much is kept of a larger message
KEPT_BYTES = 64 * 1024
#: how much a list shows of a message
LISTED_BYTES = 4 * 1024
MAX_MESSAGE_ID_CHARACTERS = 255
#: how much is kept of an id that cannot be stored
_LEGIBLE_CHARACTERS = 150
_log = get_logger(__name__)
PAST_EXECUTE_AT = Invalid.field("execute_at", "must be in the future")


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A message as a broker delivered it. `tag` is its number there; `message_id` is unique within its `source`.

    Properties that are not UTF-8 are bytes.
    """

    tag: int
    source: str
    message_id: str | bytes | None
    body: bytes
    encoding: str | bytes | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """A message that made no task, with the reason. `body` is truncated if `size`, in bytes, is larger."""

    id: UUID
    source: str
    message_id: str | None
    reason: str
    details: tuple[FieldError, ...]
    body: bytes
    size: int


@dataclass(frozen=True, slots=True)
class StoredRejection:
    rejection: Rejection
    received_at: datetime


@dataclass(frozen=True, slots=True)
class RejectedMessage:
    """A rejection just stored, of the message with this `tag`."""

    tag: int
    id: UUID
    reason: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A message that was read: the requested task, or why there is none."""

    message: IncomingMessage
    verdict: NewTask | Rejection


@dataclass(frozen=True, slots=True)
class Stored:
    """The result of one transaction. Messages whose id was seen before, and those whose unique key a live task has, are
    in neither."""

    tasks: Sequence[NewTask]
    rejected: Sequence[RejectedMessage]


#: makes a rejection of a message and its error
Reject = Callable[[IncomingMessage, AppError], Rejection]


class MessageRepository(Protocol):
    """What the use cases need from the database. Each method is one transaction."""

    def store(self, candidates: Sequence[Candidate], reject: Reject) -> Stored:
        """Store tasks and rejections of messages not seen before. A task whose time has passed or whose user was
        deleted becomes the rejection that `reject` makes of PAST_EXECUTE_AT or UserDeleted.

        Raises CannotStore if a message's content is the cause, not the database's state, and DatabaseLocked if one of
        their keys is in another session's open transaction.
        """

    def search(self, *, after: UUID | None, limit: int, offset: int) -> tuple[list[StoredRejection], int]:
        """A page of rejections, newest first, and how many there are in all. `after` skips that id and all newer."""

    def get(self, rejection_id: UUID) -> StoredRejection | None: ...

    def accept(self, rejection_id: UUID, task: NewTask) -> UUID | None:
        """Store the task and remove the rejection. Returns the id of the task or of the live one with its unique key;
        None if the rejection is gone. Raises PastExecuteAt and UserDeleted."""

    def forget(self, rejection_id: UUID) -> StoredRejection | None:
        """Remove and return a rejection."""


class CannotStore(Exception):
    """The database refuses a value that passed all checks."""


class Messages:
    """`announce` tells workers that tasks are ready or scheduled; it must neither block nor raise."""

    def __init__(self, repository: MessageRepository, tasks: Tasks, *, announce: Callable[[str], None]) -> None:
        self._repository = repository
        self._tasks = tasks
        self._announce = announce

    def take(self, messages: Sequence[IncomingMessage]) -> Sequence[RejectedMessage]:
        """Make a task or a rejection of each message, all in one transaction. Returns the rejections.

        Raises Unavailable and DeadlineExceeded (DatabaseLocked for a single one), with nothing stored.
        """
        return self._store([Candidate(message, self._read(message)) for message in messages])

    def _store(self, candidates: Sequence[Candidate]) -> Sequence[RejectedMessage]:
        try:
            stored = self._repository.store(candidates, _rejection)
        except CannotStore:
            # One of them is to blame; the others must not wait for it.
            if len(candidates) > 1:
                half = len(candidates) // 2
                return [*self._store(candidates[:half]), *self._store(candidates[half:])]
            message = candidates[0].message
            refused = _rejection(message, Invalid("The database cannot hold what this message says."))
            stored = self._repository.store([Candidate(message, refused)], _rejection)
        for announcement, later in ((READY, False), (SCHEDULED, True)):
            if any((task.execute_at is not None) is later for task in stored.tasks):
                self._announce(announcement)
        return stored.rejected

    def _read(self, message: IncomingMessage) -> NewTask | Rejection:
        try:
            if len(message.body) > MAX_MESSAGE_BYTES:
                raise Invalid(f"The message has {len(message.body)} bytes; {MAX_MESSAGE_BYTES} are allowed.")
            if message.message_id != _storable(message.message_id):
                raise Invalid.field(
                    "message_id", f"must be 1 to {MAX_MESSAGE_ID_CHARACTERS} characters in UTF-8, none of them NUL"
                )
            if message.encoding not in (None, "", "utf-8", "identity"):
                raise Invalid.field("content_encoding", "must be left out: the body is plain JSON")
            return self._tasks.prepare(read_task(message.body), reach=Reach.all())
        except AppError as error:
            return _rejection(message, error)
        except Exception as error:
            # It would be redelivered for ever, and hold up all others.
            _log.error("message_not_read", source=message.source, cause=type(error).__name__)
            return _rejection(message, Invalid(f"The message cannot be read ({type(error).__name__})."))

    def rejected(self, query: RejectedMessageQuery) -> RejectedMessagePage:
        found, total = self._repository.search(after=query.after, limit=query.limit + 1, offset=query.offset)
        page = [_view_of(one) for one in found[: query.limit]]
        return RejectedMessagePage(
            rejected=page,
            total=total,
            limit=query.limit,
            offset=query.offset,
            next=page[-1].id if len(found) > len(page) else None,
        )

    def get(self, rejection_id: UUID) -> RejectedMessageView:
        return _view_of(self._stored(rejection_id))

    def requeue(self, rejection_id: UUID) -> TaskView:
        """Read the unchanged message again: its type may be known by now. Raises what reading raises."""
        rejection = self._stored(rejection_id).rejection
        if rejection.size > len(rejection.body):
            raise MessageIncomplete
        task = self._tasks.prepare(read_task(rejection.body), reach=Reach.all())
        try:
            task_id = self._repository.accept(rejection_id, task)
        except PastExecuteAt as exc:
            raise PAST_EXECUTE_AT from exc
        if task_id is None:
            raise MessageNotFound
        self._announce(READY if task.execute_at is None else SCHEDULED)
        return self._tasks.get(task_id, reach=Reach.all())

    def forget(self, rejection_id: UUID) -> RejectedMessageView:
        forgotten = self._repository.forget(rejection_id)
        if forgotten is None:
            raise MessageNotFound
        return _view_of(forgotten)

    def _stored(self, rejection_id: UUID) -> StoredRejection:
        stored = self._repository.get(rejection_id)
        if stored is None:
            raise MessageNotFound
        return stored


def read_task(body: bytes) -> TaskMessage:
    """Parse a message: a task as in POST /tasks, plus `status`, which may only say that it is new."""
    return parse_body(TaskMessage, body, "application/json", may_be_empty=True)


def _rejection(message: IncomingMessage, error: AppError) -> Rejection:
    whole = len(message.body) <= MAX_MESSAGE_BYTES
    return Rejection(
        id=new_id(),
        source=message.source,
        message_id=_storable(message.message_id),
        reason=error.message,
        details=error.details,
        body=message.body if whole else message.body[:KEPT_BYTES],
        size=len(message.body),
    )


def _storable(message_id: str | bytes | None) -> str | None:
    """The id itself if the table can hold it, else its legible part with a hash that keeps it unique."""
    if message_id is None:
        return None
    if isinstance(message_id, str) and len(message_id) <= MAX_MESSAGE_ID_CHARACTERS and "\0" not in message_id:
        return message_id
    raw = message_id if isinstance(message_id, bytes) else message_id.encode("utf-8")
    legible = raw.decode("utf-8", "backslashreplace").replace("\0", "\\0")[:_LEGIBLE_CHARACTERS]
    return f"{legible} (SHA-256 {sha256(raw).hexdigest()})"


def _view_of(stored: StoredRejection) -> RejectedMessageView:
    rejection = stored.rejection
    return RejectedMessageView(
        id=rejection.id,
        source=rejection.source,
        message_id=rejection.message_id,
        reason=rejection.reason,
        details=[MessageFault(field=one.field, message=one.message) for one in rejection.details],
        body=rejection.body[:KEPT_BYTES].decode("utf-8", "replace"),
        size=rejection.size,
        received_at=stored.received_at,
    )
