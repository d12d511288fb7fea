"""Tasks and workers in PostgreSQL, for workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from psycopg2.extensions import AsIs
from sqlalchemy.orm import Session

from service_tasks.domain.task import (
    MAX_KEPT_ERRORS,
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
from service_tasks.engine.ports import READY, AttemptCounts, Load, Offer, Promotion, WorkerInfo
from service_tasks.persistence.dedicated_connections import DedicatedConnections
from service_tasks.persistence.insertion import array
from service_tasks.persistence.statements import StoreStatements
from service_tasks.persistence.task_ends import TaskEnds
from servicekit.database.engine import Database
from servicekit.wire.errors import DeadlineExceeded, Unavailable

#: A worker stops a task at its deadline; this many seconds later a rescuer takes it.
OVERDUE_SLACK_SECONDS = 15.0
#: how old the list of limited types may be, in seconds
LIMITS_SECONDS = 1.0

#: what the driver writes for a claim's parameters when it is prepared
_PREPARED = {"types": AsIs("$1"), "timeouts": AsIs("$2"), "limit": AsIs("$3"), "worker_id": AsIs("$4")}

O = TypeVar("O", bound=Outcome)  # noqa: E741 - the one letter for an outcome


class ClaimedRow(NamedTuple):
    """A claim's row; rows sort as the tasks should start. Times in seconds."""

    turn: float
    id: str
    lease_no: int
    task_type: str
    payload: str
    attempts: int
    max_attempts: int
    timeout_seconds: float
    claimed_at: float
    waited_seconds: float


class EngineStore:
    """Implements `engine.ports.WorkerStore`. Every method is one transaction, and raises `DatabaseUnavailable` if the
    database is away."""

    def __init__(self, database: Database, ends: TaskEnds | None = None) -> None:
        """`ends` writes the events of tasks that end; by default none."""
        self._statements = StoreStatements(database, "queries.sql")
        self._limited: frozenset[str] = frozenset()
        self._limited_until = 0.0
        self._connections = DedicatedConnections(database, self._statements["prepare"], _PREPARED)
        self._ends = ends or TaskEnds()

    def beat(self, worker: WorkerInfo) -> None:
        self._statements.once(
            "beat",
            id=str(worker.id),
            name=worker.name,
            task_types=list(worker.task_types),
            lease_seconds=worker.lease_seconds,
        )

    def report_load(self, worker_id: UUID, load: Load, counted: Mapping[str, AttemptCounts]) -> None:
        with self._statements.transaction() as session:
            self._statements.run(
                session,
                "report_load",
                id=str(worker_id),
                slots=load.slots,
                busy=load.busy,
                threads=load.threads,
                busy_threads=load.busy_threads,
            )
            if counted:
                # Sorted by type, as the rows are. Only this worker writes them.
                ordered = sorted(counted.items())
                self._statements.run(
                    session,
                    "add_counts",
                    worker_id=str(worker_id),
                    types=[name for name, _ in ordered],
                    completed=[one.completed for _, one in ordered],
                    failed=[one.failed for _, one in ordered],
                    retried=[one.retried for _, one in ordered],
                    # As texts, since an array of arrays allows only one length.
                    waits=[array(map(str, one.waits)) for _, one in ordered],
                    runs=[array(map(str, one.runs)) for _, one in ordered],
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
            # First, since the others could take every slot; at most half of the slots, since these could too.
            rows = self._claim_limited(worker_id, limited, max(1, limit // 2))
        # The statement skips types that were limited meanwhile.
        free = [offer for offer in offers if not offer.is_limited]
        if free and len(rows) < limit:
            claim = self._statements["execute_claim"]
            rows += self._connections.run(claim, _claim_of(worker_id, free, limit - len(rows)))
        try:
            # Last, so that no task waits for it.
            newly = self._newly_limited()
            limited = [offer for offer in free if offer.task_type in newly]
            if limited and len(rows) < limit:
                rows += self._claim_limited(worker_id, limited, limit - len(rows))
        except (Unavailable, DeadlineExceeded):
            # The tasks already claimed are run; the next claim raises again.
            if not rows:
                raise
        return _claimed(rows)

    def _claim_limited(self, worker_id: UUID, offers: Sequence[Offer], limit: int) -> list[tuple[Any, ...]]:
        return self._connections.run_and_commit(
            self._statements["lock_limits_and_claim"],
            {
                **_claim_of(worker_id, offers, limit),
                "most": [offer.max_running for offer in offers],
                "most_per_user": [offer.max_running_per_user for offer in offers],
            },
        )

    def limits_apply(self) -> bool:
        return bool(self._limited)

    def _newly_limited(self) -> Collection[str]:
        """Reload the types with limits, at most once a second; return the new ones."""
        now = time.monotonic()
        if now < self._limited_until:
            return ()
        before = self._limited
        self._limited = frozenset(
            name for (name,) in self._connections.run(self._statements["execute_limited_types"], {})
        )
        self._limited_until = now + LIMITS_SECONDS
        return self._limited - before

    def write(self, outcomes: Collection[Outcome], worker_name: str) -> set[Lease]:
        succeeded = _of_kind(outcomes, Succeeded)
        if len(succeeded) == len(outcomes) and not self._ends.has_events(State.COMPLETED):
            if self._connections.count(self._statements["complete_briefly"], _completion(succeeded)) == len(succeeded):
                return {item.lease for item in succeeded}
            # Some came too late, or have a callback, which must be in one transaction with the end.
            with self._statements.transaction() as session:
                self._write(session, succeeded, worker_name)
                leases = _leases(item.lease for item in succeeded)
                rows = self._statements.rows(session, "completed_under", **leases)
            return {Lease(key, number) for key, number in rows}
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
            return {Lease(key, number) for key, number in self._statements.rows(session, "locked", **_leases(leases))}

    def held_by(self, worker_id: UUID) -> set[Lease]:
        return {Lease(key, number) for key, number in self._statements.once("held_by", worker_id=str(worker_id))}

    def cancelled_under(self, worker_id: UUID) -> set[Lease]:
        rows = self._statements.once("cancelled_under", worker_id=str(worker_id))
        return {Lease(key, number) for key, number in rows}

    def promote(self, limit: int) -> Promotion:
        with self._statements.transaction() as session:
            promoted = self._statements.run(session, "promote", limit=limit).rowcount
            if promoted < limit:
                promoted += self._statements.run(session, "promote_suspects", limit=limit - promoted).rowcount
            seconds = self._statements.run(session, "next_scheduled").scalar_one()
            if promoted:
                self._statements.run(session, "announce", announcement=READY)
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
            outcomes = [decide(_lost(row)) for row in rows]
            accepted = self._write(session, outcomes, rescuer)
        return [outcome for outcome in outcomes if outcome.lease in accepted]

    def _write(self, session: Session, outcomes: Collection[Outcome], worker_name: str) -> set[Lease]:
        accepted: set[Lease] = set()
        ended: list[str] = []
        self._statements.run(session, "by_id_briefly")

        def end(statement: str, state: State, **parameters: Any) -> None:
            has_events = self._ends.has_events(state)
            for key, number, has_ended, has_callback in self._statements.rows(session, statement, **parameters):
                lease = Lease(key, number)
                accepted.add(lease)
                if has_ended and (has_events or has_callback):
                    ended.append(lease.key)

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
            end("complete_for_callbacks", State.COMPLETED, **_completion(succeeded))
        if failed:
            end(
                "fail",
                State.FAILED,
                **_leases(item.lease for item in failed),
                types=[item.error.type for item in failed],
                messages=[item.error.message for item in failed],
                traces=[item.error.trace for item in failed],
                retries=[item.at if isinstance(item, WillRetry) else None for item in failed],
                suspects=[item.suspects if isinstance(item, WillRetry) else None for item in failed],
                worker=worker_name,
                kept=MAX_KEPT_ERRORS,
            )
        for statement, leases in (
            ("hand_back", [item.lease for item in handed_back]),
            ("stopped_after_cancel", [item.lease for item in stopped]),
        ):
            if leases:
                rows = self._statements.rows(session, statement, **_leases(leases))
                accepted.update(Lease(key, number) for key, number in rows)
        self._ends.follow(session, ended)
        return accepted


def _of_kind(outcomes: Iterable[Outcome], kind: type[O]) -> list[O]:
    # Every writer uses this order, so that two batches over the same rows cannot deadlock.
    return sorted((item for item in outcomes if isinstance(item, kind)), key=_lease_of)


def _claim_of(worker_id: UUID, offers: Sequence[Offer], limit: int) -> dict[str, Any]:
    return {
        "types": [offer.task_type for offer in offers],
        "timeouts": [offer.timeout_seconds for offer in offers],
        "limit": limit,
        "worker_id": str(worker_id),
    }


_lease_of = attrgetter("lease")


def _leases(leases: Iterable[Lease]) -> dict[str, str]:
    pairs = list(leases)
    return {"ids": array([lease.key for lease in pairs]), "leases": array([str(lease.number) for lease in pairs])}


def _completion(succeeded: Sequence[Succeeded]) -> dict[str, str]:
    return {
        **_leases(item.lease for item in succeeded),
        "results": "[" + ",".join([item.result for item in succeeded]) + "]",
    }


def _claimed(rows: list[tuple[Any, ...]]) -> list[ClaimedTask]:
    if not rows:
        return []
    # UPDATE … RETURNING returns rows in any order; the most urgent should start first.
    rows.sort()
    claimed_at = datetime.fromtimestamp(ClaimedRow._make(rows[0]).claimed_at, UTC)
    # A generated __new__ takes twice as long as a tuple's own.
    new = tuple.__new__
    return [
        new(
            ClaimedTask,
            (new(Lease, (key, number)), task_type, payload, attempt, max_attempts, timeout, claimed_at, waited),
        )
        for _turn, key, number, task_type, payload, attempt, max_attempts, timeout, _now, waited in rows
    ]


def _lost(row: Any) -> LostTask:
    return LostTask(
        lease=Lease(row.id, row.lease_no),
        attempt=row.attempts,
        max_attempts=row.max_attempts,
        overdue=row.overdue,
        lost_at=row.lost_at,
        task_type=row.task_type,
        worker_id=row.worker_id,
        suspects=row.suspects,
        company=row.company,
    )
