"""Tasks and workers in PostgreSQL: the use cases' repository and the engine's store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter, itemgetter
from typing import Any, TypeVar
from uuid import UUID

import psycopg2
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service_tasks.domain.callback import LARGEST_RESULT_IN_CALLBACK
from service_tasks.domain.task import (
    MAX_KEPT_ERRORS,
    USER_DELETED,
    ClaimedTask,
    FailedForGood,
    HandedBack,
    Lease,
    LostTask,
    Outcome,
    Progress,
    State,
    StoppedAfterCancel,
    Succeeded,
    WillRetry,
)
from service_tasks.engine.ports import READY, Counted, Load, Offer, Promotion, WorkerInfo, cancel_announcement
from service_tasks.errors import TaskStateConflict, UniqueKeyTaken, UserDeleted
from service_tasks.persistence.callbacks import callback_of
from service_tasks.persistence.dedicated_connections import DedicatedConnections
from service_tasks.persistence.statements import Statements
from service_tasks.persistence.task_outbox import TaskOutbox
from service_tasks.persistence.task_outbox import UserDeleted as UserDeletedData
from service_tasks.persistence.wake_ups import PostgresWakeUps
from service_tasks.use_cases.tasks import Control, NewTask, PastExecuteAt, Selection, Standing, StoredTask
from servicekit.database.engine import Database
from servicekit.events import tombstones
from servicekit.events.cloudevents import Event, read_data
from servicekit.wire.errors import DeadlineExceeded, Unavailable

#: bytes of JSON above which a list leaves a value out
LARGEST_IN_LIST = 16 * 1024
#: the worker stops a handler at its deadline; only if that did not help within this time, a rescuer steps in
OVERDUE_SLACK_SECONDS = 15.0

#: new tasks in one statement, and characters of their payloads, of which the driver makes several copies; a batch may
#: have several
BATCH = 1000
LARGEST_TEXT = 1024 * 1024
#: how old the list of limited types may be
LIMITS_SECONDS = 1.0
#: the pause between two announcements of callbacks
ANNOUNCE_SECONDS = 0.05

O = TypeVar("O", bound=Outcome)  # noqa: E741 - the one letter for an outcome


class TaskStore:
    """Every method is one transaction and raises `DatabaseUnavailable` when it cannot be had."""

    def __init__(self, database: Database, events: TaskOutbox | None = None) -> None:
        """`events` writes what others are told of tasks that end; by default nothing."""
        self._database = database
        self._statements = Statements(database, "queries.sql")
        self._limited: frozenset[str] = frozenset()
        self._limited_until = 0.0
        self._lines = DedicatedConnections(
            database,
            f"{self._statements['by_id']}; {self._statements['in_turn']}".replace("SET LOCAL", "SET"),
            {name: self._statements[name] for name in ("claim", "limited_types")},
        )
        self._completion = f"SET LOCAL lock_timeout = '500ms'; {self._statements['complete']}"
        self._events = events or TaskOutbox()
        self._announce_again_at = 0.0

    # What people do

    def add(self, task: NewTask, announcement: str | None = None) -> StoredTask | None:
        if task.execute_at is None and task.user_id is None:
            # Nothing to be asked first.
            return stored_or_none(self._statements.once(insertion(announcement), **new_row(task, announcement)))
        with self._statements.transaction() as session:
            if task.execute_at is not None:
                (future,) = self._statements.row(session, "is_future", execute_at=task.execute_at)
                if not future:
                    raise PastExecuteAt
            if task.user_id is not None and tombstones.buried(session, {task.user_id}):
                raise UserDeleted
            return self.insert(session, task, announcement)

    def insert(self, session: Session, task: NewTask, announcement: str | None = None) -> StoredTask | None:
        """Store a task inside the caller's transaction; None when its idempotency key or its unique key is taken.

        The caller has asked `tombstones.buried` for its user in the same transaction. The announcement, if there is
        one, goes out with the commit in any case.
        """
        row = self._statements.row(session, insertion(announcement), **new_row(task, announcement))
        return None if row is None else _stored(row)

    def add_many(self, tasks: Sequence[NewTask]) -> Mapping[UUID, UUID]:
        if len(tasks) <= BATCH and all(_is_plain(task) for task in tasks):
            (part, *others) = _parts(tasks)
            if not others:
                # Nothing to be asked, first or afterwards.
                self._statements.once("insert_many", **_new_rows(part))
                return {}
        with self._statements.transaction() as session:
            if any(task.execute_at is not None for task in tasks):
                late = self._statements.row(session, "first_past", times=_nullable(task.execute_at for task in tasks))
                if late is not None:
                    raise PastExecuteAt(late[0] - 1)
            users = {task.user_id for task in tasks if task.user_id is not None}
            gone = tombstones.buried(session, users)
            if gone:
                raise UserDeleted(f"tasks.{next(i for i, task in enumerate(tasks) if task.user_id in gone)}.user_id")
            return self.insert_many(session, tasks)

    def insert_many(self, session: Session, tasks: Sequence[NewTask]) -> Mapping[UUID, UUID]:
        """Store tasks inside the caller's transaction; gives, for those whose unique key is taken, the live task that
        has it. Idempotency keys are not looked at, nor whether `execute_at` has passed; and the caller has asked
        `tombstones.buried` for their users in the same transaction."""
        # In the order of the keys: two batches with the same keys wait for each other, but never in a circle.
        ordered = sorted(tasks, key=_unique_key_of) if any(task.unique_key for task in tasks) else tasks
        taken: dict[UUID, UUID] = {}
        while ordered:
            for part in _parts(ordered):
                self._statements.run(session, "insert_many", **_new_rows(part))
            keyed = [task for task in ordered if task.unique_key is not None]
            alive = self._alive(session, keyed)
            taken.update((task.id, alive[key]) for task in keyed if (key := task.unique_key) in alive)
            # Whoever had the key may have ended since: then it is free again.
            ordered = [task for task in keyed if task.unique_key not in alive]
        return {mine: theirs for mine, theirs in taken.items() if mine != theirs}

    def _alive(self, session: Session, keyed: Sequence[NewTask]) -> dict[str | None, UUID]:
        if not keyed:
            return {}
        rows = self._statements.rows(session, "live_keys", keys=[task.unique_key for task in keyed])
        return {key: task_id for key, task_id in rows}

    def by_unique_key(self, unique_key: str, *, answers: tuple[str, bytes] | None = None) -> StoredTask | None:
        if answers is None:
            return stored_or_none(self._statements.once("get_live", unique_key=unique_key))
        key, request_hash = answers
        rows = self._statements.once(
            "answer", unique_key=unique_key, idempotency_key=key, request_hash=psycopg2.Binary(request_hash)
        )
        return self.get(rows[0][0]) if rows else None

    def controls(self) -> Mapping[str, Control]:
        return {row[0]: Control(*row[1:]) for row in self._statements.once("controls")}

    def control(self, task_type: str, changes: Mapping[str, Any]) -> None:
        unset: dict[str, Any] = {"paused": None, "max_running": None, "max_running_per_user": None}
        self._statements.once("control", name=task_type, **{**unset, **changes}, named=list(changes))

    def by_key(self, idempotency_key: str) -> tuple[StoredTask, bytes] | None:
        rows = self._statements.once("get_by_key_or_answer", idempotency_key=idempotency_key)
        return (_stored(rows[0]), bytes(rows[0][-1])) if rows else None

    def get(self, task_id: UUID) -> StoredTask | None:
        return stored_or_none(self._statements.once("get", id=str(task_id)))

    def search(self, selection: Selection) -> tuple[list[StoredTask], int]:
        which: dict[str, Any] = {
            "states": None if selection.states is None else [state.value for state in selection.states],
            "task_type": selection.task_type,
            "user_id": _text(selection.user_id),
        }
        with self._statements.transaction() as session:
            # One snapshot for the page and its total.
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            rows = self._statements.rows(
                session,
                "list",
                **which,
                after=_text(selection.after),
                limit=selection.limit,
                offset=selection.offset,
                largest=LARGEST_IN_LIST,
            )
            total: int = self._statements.run(session, "count", **which).scalar_one()
        return [_stored(row) for row in rows], total

    def cancel(self, task_id: UUID) -> StoredTask | None:
        with self._statements.transaction() as session:
            row = self._statements.row(session, "cancel", id=str(task_id))
            if row is None:
                return None
            self._tell_worker(session, row)
            self._events.ended(session, State.CANCELLED, [task_id])
            if _has_callback(row):
                self.call_back(session, [task_id])
                row = self._statements.row(session, "get", id=str(task_id))
        return _stored(row)

    def user_deleted(self, session: Session, event: Event) -> None:
        """Cancel every live task of the user, and let none be made for them any more; `Invalid` for bad data."""
        user_id = read_data(UserDeletedData, event).id
        tombstones.bury(session, user_id, event.time)
        rows = self._statements.rows(session, "cancel_of_user", user_id=str(user_id), reason=USER_DELETED)
        for task_id, lease_no, worker_id, _ in rows:
            if worker_id is not None:
                self._statements.run(session, "announce", announcement=cancel_announcement(Lease(task_id, lease_no)))
        self._events.ended(session, State.CANCELLED, [row[0] for row in rows])
        self.call_back(session, [row[0] for row in rows if row[3]])

    def purge(self, task_id: UUID) -> StoredTask | None:
        with self._statements.transaction() as session:
            cancelled = self._statements.row(session, "cancel", id=str(task_id))
            if cancelled is not None:
                self._events.ended(session, State.CANCELLED, [task_id])
                if _has_callback(cancelled):
                    self.call_back(session, [task_id])
            row = self._statements.row(session, "purge", id=str(task_id))
            if row is None:
                return None
            self._statements.run(session, "forget_answers", id=str(task_id))
            if cancelled is not None:
                self._tell_worker(session, cancelled)
        return _stored(row)

    def retry(self, task_id: UUID) -> StoredTask | None:
        try:
            with self._statements.transaction() as session:
                row = self._statements.row(session, "retry", id=str(task_id))
                if row is not None and row[4] is not None and tombstones.buried(session, {row[4]}):
                    raise TaskStateConflict("The user of this task was deleted, so it cannot be run again.")
        except IntegrityError as exc:
            if getattr(getattr(exc.orig, "diag", None), "constraint_name", None) == "uq_tasks_unique_key":
                raise UniqueKeyTaken from exc
            raise
        return None if row is None else _stored(row)

    def live_types(self) -> Mapping[str, int]:
        return dict(self._statements.once("live_types"))

    def standing(self) -> Mapping[str, Standing]:
        return {row[0]: Standing(*row[1:]) for row in self._statements.once("standing")}

    def announce(self, announcement: str) -> None:
        """Tell every listening worker. A commit with NOTIFY takes a lock over the whole server: use it rarely."""
        self._statements.once("announce", announcement=announcement)

    # What workers do

    def beat(self, worker: WorkerInfo) -> None:
        self._statements.once(
            "beat",
            id=str(worker.id),
            name=worker.name,
            task_types=list(worker.task_types),
            lease_seconds=worker.lease_seconds,
        )

    def tell(self, worker_id: UUID, load: Load, counted: Mapping[str, Counted]) -> None:
        with self._statements.transaction() as session:
            self._statements.run(
                session,
                "tell",
                id=str(worker_id),
                slots=load.slots,
                busy=load.busy,
                threads=load.threads,
                busy_threads=load.busy_threads,
            )
            if counted:
                # In the order of the types, which is that of the rows. Nobody else writes those of this worker.
                ordered = sorted(counted.items())
                self._statements.run(
                    session,
                    "add_counts",
                    worker_id=str(worker_id),
                    types=[name for name, _ in ordered],
                    completed=[one.completed for _, one in ordered],
                    failed=[one.failed for _, one in ordered],
                    retried=[one.retried for _, one in ordered],
                    # An array has rows of one length only; texts have their own.
                    waits=[_array(map(str, one.waits)) for _, one in ordered],
                    runs=[_array(map(str, one.runs)) for _, one in ordered],
                )

    def forget_worker(self, worker_id: UUID) -> None:
        self._statements.once("forget_worker", worker_id=str(worker_id))

    def forget_dead_workers(self) -> int:
        with self._statements.transaction() as session:
            return self._statements.run(session, "forget_dead_workers").rowcount

    def claim(self, worker_id: UUID, offers: Sequence[Offer], limit: int) -> list[ClaimedTask]:
        rows: list[tuple[Any, ...]] = []
        if not self._limited_until:
            self._newly_limited()
        limited = [offer for offer in offers if offer.is_limited or offer.task_type in self._limited]
        if limited:
            # First, since the others could take every place; and half of the places, since these could too.
            rows = self._claim_limited(worker_id, limited, max(1, limit // 2))
        # Those that people have limited since are left alone by the statement.
        free = [offer for offer in offers if not offer.is_limited]
        if free and len(rows) < limit:
            rows += self._lines.execute("claim", _claim_of(worker_id, free, limit - len(rows)))
        try:
            # Last, so that no task waits for it.
            newly = self._newly_limited()
            limited = [offer for offer in free if offer.task_type in newly]
            if limited and len(rows) < limit:
                rows += self._claim_limited(worker_id, limited, limit - len(rows))
        except (Unavailable, DeadlineExceeded):
            # What is claimed is run; the next claim will say the same.
            if not rows:
                raise
        return _claimed(rows)

    def _claim_limited(self, worker_id: UUID, offers: Sequence[Offer], limit: int) -> list[tuple[Any, ...]]:
        return self._lines.run_behind(
            self._statements["lock_limits"],
            self._statements["claim_limited"],
            {
                **_claim_of(worker_id, offers, limit),
                "most": [offer.max_running for offer in offers],
                "most_per_user": [offer.max_running_per_user for offer in offers],
            },
        )

    def limits_apply(self) -> bool:
        return bool(self._limited)

    def _newly_limited(self) -> Collection[str]:
        """Look again, if the last look was a second ago, at the types that have limits; gives those that had none."""
        now = time.monotonic()
        if now < self._limited_until:
            return ()
        before = self._limited
        self._limited = frozenset(row[0] for row in self._lines.execute("limited_types", {}))
        self._limited_until = now + LIMITS_SECONDS
        return self._limited - before

    def write(self, outcomes: Collection[Outcome], worker_name: str) -> set[Lease]:
        succeeded = _of_kind(outcomes, Succeeded)
        if len(succeeded) == len(outcomes) and not self._events.wanted(State.COMPLETED):
            if self._lines.count(self._completion, _completion(succeeded)) == len(succeeded):
                return {item.lease for item in succeeded}
            # Some came too late, or have a callback, which is one transaction with the end.
            with self._statements.transaction() as session:
                self._write(session, succeeded, worker_name)
                leases = _leases(item.lease for item in succeeded)
                rows = self._statements.rows(session, "completed_under", **leases)
            return {Lease(row[0], row[1]) for row in rows}
        with self._statements.transaction() as session:
            return self._write(session, outcomes, worker_name)

    def write_progress(self, reports: Collection[Progress]) -> None:
        ordered = sorted(reports, key=lambda report: report.lease)
        with self._statements.transaction() as session:
            self._statements.run(session, "by_id_briefly")
            self._statements.run(
                session,
                "write_progress",
                **_leases(report.lease for report in ordered),
                percents=[report.percent for report in ordered],
                messages=[report.message for report in ordered],
            )

    def locked(self, leases: Collection[Lease]) -> set[Lease]:
        with self._statements.transaction() as session:
            self._statements.run(session, "by_id")
            rows = self._statements.rows(session, "locked", **_leases(leases))
        return {Lease(row[0], row[1]) for row in rows}

    def held_by(self, worker_id: UUID) -> set[Lease]:
        return {Lease(row[0], row[1]) for row in self._statements.once("held_by", worker_id=str(worker_id))}

    def cancelled_under(self, worker_id: UUID) -> set[Lease]:
        return {Lease(row[0], row[1]) for row in self._statements.once("cancelled_under", worker_id=str(worker_id))}

    def promote(self, limit: int) -> Promotion:
        with self._statements.transaction() as session:
            promoted = self._statements.run(session, "promote", limit=limit).rowcount
            if promoted < limit:
                promoted += self._statements.run(session, "promote_suspects", limit=limit - promoted).rowcount
            seconds = self._statements.run(session, "next_scheduled").scalar_one()
            if promoted:
                self._statements.run(session, "announce", announcement="ready")
        return Promotion(promoted, None if seconds is None else max(0.0, seconds))

    def rescue(
        self, *, lease_seconds: float, limit: int, rescuer: str, decide: Callable[[LostTask], Outcome]
    ) -> list[Outcome]:
        with self._statements.transaction() as session:
            rows = self._statements.rows(
                session,
                "lost",
                lease_seconds=lease_seconds,
                slack_seconds=OVERDUE_SLACK_SECONDS,
                limit=limit,
            )
            outcomes = [decide(LostTask(Lease(row[0], row[1]), *row[2:])) for row in rows]
            accepted = self._write(session, outcomes, rescuer)
        return [outcome for outcome in outcomes if outcome.lease in accepted]

    def open_wake_ups(self) -> PostgresWakeUps:
        """A connection of its own that LISTENs; the caller closes it."""
        return PostgresWakeUps(self._database)

    # How

    def _tell_worker(self, session: Session, row: Sequence[Any]) -> None:
        lease_no, worker_id = row[22], row[23]
        if worker_id is not None:
            self._statements.run(session, "announce", announcement=cancel_announcement(Lease(row[0], lease_no)))

    def _write(self, session: Session, outcomes: Collection[Outcome], worker_name: str) -> set[Lease]:
        accepted: set[Lease] = set()
        told: list[Lease] = []
        self._statements.run(session, "by_id_briefly")

        def write(name: str, batch: Sequence[Outcome], **arrays: Any) -> None:
            if batch:
                rows = self._statements.rows(session, name, **_leases(item.lease for item in batch), **arrays)
                accepted.update(Lease(row[0], row[1]) for row in rows)
                told.extend(Lease(row[0], row[1]) for row in rows if len(row) > 2 and row[2])

        succeeded = _of_kind(outcomes, Succeeded)
        handed_back, stopped = _of_kind(outcomes, HandedBack), _of_kind(outcomes, StoppedAfterCancel)
        failed: list[WillRetry | FailedForGood] = [
            *_of_kind(outcomes, WillRetry),
            *_of_kind(outcomes, FailedForGood),
        ]
        failed.sort(key=_lease_of)
        if sum(map(bool, (succeeded, failed, handed_back, stopped))) > 1:
            self._statements.run(session, "lock_leases", **_leases(item.lease for item in outcomes))
        if succeeded:
            rows = self._statements.rows(session, "complete_and_tell", **_completion(succeeded))
            accepted.update(Lease(row[0], row[1]) for row in rows)
            told.extend(Lease(row[0], row[1]) for row in rows if row[2])
        write(
            "fail",
            failed,
            types=[item.error.type for item in failed],
            messages=[item.error.message for item in failed],
            traces=[item.error.trace for item in failed],
            retries=[item.at if isinstance(item, WillRetry) else None for item in failed],
            suspects=[item.suspects if isinstance(item, WillRetry) else None for item in failed],
            worker=worker_name,
            kept=MAX_KEPT_ERRORS,
        )
        write("hand_back", handed_back)
        write("stopped_after_cancel", stopped)
        for state, ended in ((State.COMPLETED, succeeded), (State.FAILED, failed)):
            self._events.ended(session, state, [item.lease.task_id for item in ended if item.lease in accepted])
        self.call_back(session, [lease.task_id for lease in told])
        return accepted

    def call_back(self, session: Session, ids: Sequence[UUID]) -> None:
        """Make the tasks that tell the ends of these, which the caller's transaction has written and which have a
        callback_url."""
        if not ids:
            return
        self._statements.run(session, "by_id")
        rows = self._statements.rows(
            session, "ended_with_callback", ids=[str(item) for item in ids], largest=LARGEST_RESULT_IN_CALLBACK
        )
        callbacks = [callback_of(row) for row in rows]
        self.insert_many(session, callbacks)
        self._statements.run(
            session,
            "link_callbacks",
            ids=_array([str(row[0]) for row in rows]),
            callbacks=_array([str(callback.id) for callback in callbacks]),
        )
        # A commit with NOTIFY takes a lock over the whole server; what is not announced is found by the poll.
        if time.monotonic() >= self._announce_again_at:
            self._announce_again_at = time.monotonic() + ANNOUNCE_SECONDS
            self._statements.run(session, "announce", announcement=READY)


def _of_kind(outcomes: Iterable[Outcome], kind: type[O]) -> list[O]:
    # One order for every writer, so that two batches over the same rows cannot deadlock.
    return sorted((item for item in outcomes if isinstance(item, kind)), key=_lease_of)


def _claim_of(worker_id: UUID, offers: Sequence[Offer], limit: int) -> dict[str, Any]:
    return {
        "types": [offer.task_type for offer in offers],
        "timeouts": [offer.timeout_seconds for offer in offers],
        "limit": limit,
        "worker_id": str(worker_id),
    }


def insertion(announcement: str | None) -> str:
    """The name of the statement that stores one task."""
    return "insert" if announcement is None else "announce_and_insert"


def new_row(task: NewTask, announcement: str | None) -> dict[str, Any]:
    """Its parameters."""
    return {
        "announcement": announcement,
        "id": str(task.id),
        "task_type": task.task_type,
        "title": task.title,
        "user_id": _text(task.user_id),
        "payload": task.payload,
        "priority": task.priority,
        "max_attempts": task.max_attempts,
        "timeout_seconds": task.timeout_seconds,
        "execute_at": task.execute_at,
        "idempotency_key": task.idempotency_key,
        "request_hash": None if task.request_hash is None else psycopg2.Binary(task.request_hash),
        "unique_key": task.unique_key,
        "callback_url": task.callback_url,
    }


def _is_plain(task: NewTask) -> bool:
    return task.execute_at is None and task.user_id is None and task.unique_key is None


def _unique_key_of(task: NewTask) -> str:
    return task.unique_key or ""


def _parts(tasks: Sequence[NewTask]) -> Iterator[Sequence[NewTask]]:
    """Of at most so many tasks, and so many characters of payload unless one alone has more."""
    start, room = 0, LARGEST_TEXT
    for end, task in enumerate(tasks):
        room -= len(task.payload)
        if end > start and (end - start == BATCH or room < 0):
            yield tasks[start:end]
            start, room = end, LARGEST_TEXT - len(task.payload)
    yield tasks[start:]


def _new_rows(tasks: Sequence[NewTask]) -> dict[str, str]:
    return {
        "ids": _array([str(task.id) for task in tasks]),
        "types": _texts([task.task_type for task in tasks]),
        "titles": _texts([task.title for task in tasks]),
        "users": _nullable(task.user_id for task in tasks),
        "payloads": "[" + ",".join([task.payload for task in tasks]) + "]",
        "priorities": _array([str(task.priority) for task in tasks]),
        "attempts": _array([str(task.max_attempts) for task in tasks]),
        "timeouts": _nullable(task.timeout_seconds for task in tasks),
        "times": _nullable(task.execute_at for task in tasks),
        "keys": _texts([task.unique_key for task in tasks]),
        "callbacks": _texts([task.callback_url for task in tasks] if any(map(_callback_url_of, tasks)) else []),
    }


def _nullable(values: Iterable[UUID | float | datetime | None]) -> str:
    """As an array literal; a time as PostgreSQL reads it, quoted for its space."""
    return _array(["NULL" if value is None else f'"{value}"' for value in values])


def _texts(values: Sequence[str | None]) -> str:
    return json.dumps(values, ensure_ascii=False)


_lease_of = attrgetter("lease")
_by_turn = itemgetter(8, 0)
_callback_url_of = attrgetter("callback_url")


def _leases(leases: Iterable[Lease]) -> dict[str, str]:
    """Both as PostgreSQL's own array literals: the driver would write them a value at a time."""
    pairs = list(leases)
    return {"ids": _array([lease.key for lease in pairs]), "leases": _array([str(lease.number) for lease in pairs])}


def _array(plain: Iterable[str]) -> str:
    """Of texts without a quote, a comma or a backslash."""
    return "{" + ",".join(plain) + "}"


def _completion(succeeded: Sequence[Succeeded]) -> dict[str, str]:
    return {
        **_leases(item.lease for item in succeeded),
        "results": "[" + ",".join([item.result for item in succeeded]) + "]",
    }


def _claimed(rows: list[tuple[Any, ...]]) -> list[ClaimedTask]:
    if not rows:
        return []
    # UPDATE … RETURNING answers in no order; the most urgent should start first.
    rows.sort(key=_by_turn)
    claimed_at = datetime.fromtimestamp(rows[0][7], UTC)
    return [
        ClaimedTask(Lease(key, number), task_type, payload, attempt, max_attempts, timeout, claimed_at, waited)
        for key, number, task_type, payload, attempt, max_attempts, timeout, _, _, waited in rows
    ]


def _stored(row: Sequence[Any]) -> StoredTask:
    return StoredTask(row[0], State(row[1]), *row[2:22], *row[24:26])


def _has_callback(row: Sequence[Any]) -> bool:
    return row[24] is not None


def stored_or_none(rows: Sequence[Sequence[Any]]) -> StoredTask | None:
    """The task of the one row, if there is one."""
    return _stored(rows[0]) if rows else None


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
