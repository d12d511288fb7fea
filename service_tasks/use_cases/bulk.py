"""Cancels or retries many tasks chosen by a filter, one batch per transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from service_tasks.domain.task import LIVE_STATES, RETRYABLE_STATES, State, Status, states_of
from service_tasks.engine.ports import READY
from service_tasks.schemas.bulk import CancelMany, ManyCancelledView, ManyRetriedView, ManyTasks, RetryMany
from servicekit.identity.reach import Reach
from servicekit.wire import deadline
from servicekit.wire.errors import DeadlineExceeded, Invalid, Unavailable

#: tasks per transaction: enough to be fast, few enough not to keep any locked for long
BATCH = 500
#: no batch begins with less than this left of the request's time, in seconds
_RESERVE_SECONDS = 2.0
_NO_DEADLINE = 3600.0


class Chosen(NamedTuple):
    """A task that matched the filter a moment ago."""

    id: UUID
    user_id: UUID | None
    unique_key: str | None


@dataclass(frozen=True, slots=True)
class Choice:
    """A filter of tasks; None matches anything. Times are from (inclusive) and before. `after` skips that id and all
    older ones. `dry`: they are only counted, so which of them are chosen does not matter."""

    states: tuple[State, ...]
    task_type: str | None
    user_id: UUID | None
    ids: tuple[UUID, ...] | None
    created_from: datetime | None
    created_before: datetime | None
    ended_from: datetime | None
    ended_before: datetime | None
    after: UUID | None
    limit: int
    dry: bool = False


@dataclass(slots=True)
class Retried:
    """How many of a batch run again, and how many do not, by reason."""

    retried: int = 0
    changed: int = 0
    user_deleted: int = 0
    unique_key_taken: int = 0

    def add(self, other: Retried) -> None:
        """Add the other's counts."""
        self.retried += other.retried
        self.changed += other.changed
        self.user_deleted += other.user_deleted
        self.unique_key_taken += other.unique_key_taken


class BulkRepository(Protocol):
    """Methods may raise `Unavailable` and `DeadlineExceeded`, with a part of the call done."""

    def choose(self, choice: Choice, *, reach: Reach) -> tuple[list[Chosen], datetime]:
        """The matching tasks, oldest first unless it is dry, and the time by the database's clock."""

    def cancel(self, ids: Collection[UUID], *, reach: Reach) -> int:
        """In one transaction, cancel the live ones and announce it to their workers; return their number."""

    def retry(self, chosen: Sequence[Chosen], states: Collection[State], *, reach: Reach) -> Retried:
        """Make those that are still in one of the states ready again."""


class Bulk:
    """`announce` tells workers that tasks are ready; it must neither block nor raise."""

    def __init__(self, repository: BulkRepository, *, announce: Callable[[str], None]) -> None:
        self._repository = repository
        self._announce = announce

    def cancel(self, body: CancelMany, *, reach: Reach) -> ManyCancelledView:
        """Cancel live tasks as `Tasks.cancel` does each."""
        choice = _choice(body, LIVE_STATES, LIVE_STATES, "pending or processing")
        chosen, as_of = self._repository.choose(choice, reach=reach)
        steps = _Steps(chosen, choice.limit - 1, dry=choice.dry)
        cancelled = tried = steps.done
        for part in steps:
            with steps.may_end():
                cancelled += self._repository.cancel([item.id for item in part], reach=reach)
                tried += len(part)
        return ManyCancelledView(cancelled=cancelled, as_of=as_of, changed=tried - cancelled, next=steps.next)

    def retry(self, body: RetryMany, *, reach: Reach) -> ManyRetriedView:
        """Run ended tasks again as `Tasks.retry` does each; failed ones unless the status says otherwise."""
        choice = _choice(
            body, RETRYABLE_STATES, {State.FAILED}, "failed or cancelled", body.ended_from, body.ended_before
        )
        chosen, as_of = self._repository.choose(choice, reach=reach)
        steps = _Steps(chosen, choice.limit - 1, dry=choice.dry)
        total = Retried(retried=steps.done)
        for part in steps:
            with steps.may_end():
                done = self._repository.retry(part, choice.states, reach=reach)
                total.add(done)
                if done.retried:
                    self._announce(READY)
        return ManyRetriedView(
            retried=total.retried,
            as_of=as_of,
            changed=total.changed,
            user_deleted=total.user_deleted,
            unique_key_taken=total.unique_key_taken,
            next=steps.next,
        )


class _Steps:
    """The chosen tasks in batches, until all are done or the request's time is nearly over; `next` is then where to
    continue."""

    def __init__(self, chosen: Sequence[Chosen], limit: int, *, dry: bool) -> None:
        """`chosen` may have one more than the limit, which shows that there are more. `dry`: all count as done."""
        self._chosen = chosen[:limit]
        self._has_more = len(chosen) > limit
        self.done = len(self._chosen) if dry else 0
        self._ended = False

    def __iter__(self) -> Iterator[Sequence[Chosen]]:
        while self.done < len(self._chosen):
            if self.done and _time_is_short():
                return
            part = self._chosen[self.done : self.done + BATCH]
            yield part
            if self._ended:
                return
            self.done += len(part)

    @contextmanager
    def may_end(self) -> Iterator[None]:
        """Wrap one batch: if the database goes away, the answer still counts the earlier batches. An error in the first
        one propagates."""
        try:
            yield
        except (Unavailable, DeadlineExceeded):
            if not self.done:
                raise
            self._ended = True

    @property
    def next(self) -> UUID | None:
        if self.done == len(self._chosen) and not self._has_more:
            return None
        return self._chosen[self.done - 1].id


def _time_is_short() -> bool:
    try:
        return deadline.remaining(_NO_DEADLINE) < _RESERVE_SECONDS
    except DeadlineExceeded:
        return True


def _choice(
    body: ManyTasks,
    possible: Collection[State],
    usual: Collection[State],
    allowed: str,
    ended_from: datetime | None = None,
    ended_before: datetime | None = None,
) -> Choice:
    named = body.status is not None or any(
        value is not None
        for value in (
            body.task_type,
            body.user_id,
            body.ids,
            body.created_from,
            body.created_before,
            ended_from,
            ended_before,
        )
    )
    if body.all and named:
        raise Invalid.field("all", "is true, and a filter is there as well: send one or the other")
    if not body.all and not named:
        raise Invalid.field("all", "name which tasks are meant, or say that all are: true")
    states = usual
    if body.status is not None:
        states = states_of(Status(body.status))
        if not set(states) <= set(possible):
            raise Invalid.field("status", f"must be {allowed}: no other task can be")
    return Choice(
        states=tuple(sorted(states)),
        task_type=body.task_type,
        user_id=body.user_id,
        ids=None if body.ids is None else tuple(body.ids),
        created_from=body.created_from,
        created_before=body.created_before,
        ended_from=ended_from,
        ended_before=ended_before,
        after=body.after,
        limit=body.limit + 1,
        dry=body.dry_run,
    )
