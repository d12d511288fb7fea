"""Schedules in PostgreSQL: the use cases' repository and the scheduler's store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from service_tasks.domain.schedule import DueSchedule, Missed, Plan, Timing
from service_tasks.domain.task import USER_DELETED
from service_tasks.engine.ports import READY, Firing
from service_tasks.errors import UserDeleted
from service_tasks.persistence.insertion import insert_many, optional_text
from service_tasks.persistence.statements import StoreStatements
from service_tasks.persistence.task_store import LARGEST_IN_LIST
from service_tasks.use_cases.schedules import NewSchedule, RequireRoom, ScheduleSelection, StoredSchedule
from servicekit.database.engine import Database
from servicekit.events import tombstones
from servicekit.identity.reach import Reach
from servicekit.process.ids import new_id

_TIMING = tuple(field.name for field in fields(Timing))


class ScheduleStore:
    """Implements `use_cases.schedules.ScheduleRepository` and `engine.ports.DueStore`."""

    def __init__(self, database: Database) -> None:
        self._statements = StoreStatements(database, "schedules.sql")

    def add(self, make: Callable[[datetime], NewSchedule], require_room: RequireRoom) -> StoredSchedule:
        statements = self._statements
        with statements.transaction() as session:
            now = statements.run(session, "clock").scalar_one()
            new = make(now)
            _require_user(session, new.user_id)
            require_room(*self._count(session, new.user_id))
            return _stored(statements.run(session, "insert", **_values(new)).one())

    def get(self, schedule_id: UUID, *, reach: Reach) -> StoredSchedule | None:
        return _stored_or_none(self._statements.once_row("get", **_one_of(schedule_id, reach)))

    def search(self, selection: ScheduleSelection, *, reach: Reach) -> tuple[list[StoredSchedule], int]:
        statements = self._statements
        which: dict[str, Any] = {
            "reach": optional_text(reach.owner),
            "task_type": selection.task_type,
            "user_id": optional_text(selection.user_id),
            "status": selection.status,
        }
        with statements.transaction() as session:
            # One snapshot for the page and its total.
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            rows = statements.rows(
                session,
                "list",
                **which,
                after=optional_text(selection.after),
                limit=selection.limit,
                offset=selection.offset,
                largest=LARGEST_IN_LIST,
            )
            total: int = statements.run(session, "count", **which).scalar_one()
        return [_stored(row) for row in rows], total

    def _count(self, session: Session, user_id: UUID | None) -> tuple[int, int]:
        """How many schedules there are, and how many of them the user has; no other is added before the commit."""
        row = self._statements.row(session, "count_before", user_id=optional_text(user_id))
        return row.in_all, row.of_user

    def change(
        self,
        schedule_id: UUID,
        decide: Callable[[StoredSchedule], StoredSchedule],
        require_room: RequireRoom,
        *,
        reach: Reach,
    ) -> StoredSchedule | None:
        statements = self._statements
        with statements.transaction() as session:
            present = _stored_or_none(statements.row(session, "lock", **_one_of(schedule_id, reach)))
            if present is None:
                return None
            wanted = decide(present)
            if wanted == present:
                return present
            if wanted.paused_at is None or wanted.user_id != present.user_id:
                _require_user(session, wanted.user_id)
            if wanted.user_id != present.user_id:
                # In all there is none more.
                require_room(0, self._count(session, wanted.user_id)[1])
            return _stored(
                statements.run(
                    session, "update", **_values(wanted), paused_at=wanted.paused_at, problem=wanted.problem
                ).one()
            )

    def delete(
        self, schedule_id: UUID, check: Callable[[StoredSchedule], None], *, reach: Reach
    ) -> StoredSchedule | None:
        statements = self._statements
        with statements.transaction() as session:
            present = _stored_or_none(statements.row(session, "lock", **_one_of(schedule_id, reach)))
            if present is not None:
                check(present)
                statements.run(session, "delete", id=str(schedule_id))
        return present

    def run_now(self, schedule_id: UUID, *, reach: Reach) -> UUID | None:
        statements = self._statements
        with statements.transaction() as session:
            schedule = _stored_or_none(statements.row(session, "lock", **_one_of(schedule_id, reach)))
            if schedule is None:
                return None
            _require_user(session, schedule.user_id)
            task_id = new_id()
            insert_many(session, [schedule.new_task(task_id)], reach=Reach.all())
            statements.run(session, "ran", id=str(schedule_id), task_id=str(task_id))
        return task_id

    def pause_of_users(self, session: Session, user_ids: Collection[UUID]) -> None:
        """Pause every schedule of these users, in the caller's transaction."""
        self._statements.run(session, "pause_of_users", user_ids=[str(id) for id in user_ids], problem=USER_DELETED)

    def pause_of_disabled(self, session: Session, user_id: UUID, reason: str) -> None:
        """The same for one who has none to run now. Waits for schedules that are locked."""
        self._statements.run(session, "pause_of_disabled", user_id=str(user_id), problem=reason)

    def fire(self, limit: int, decide: Callable[[DueSchedule], Plan]) -> Firing:
        statements = self._statements
        with statements.transaction() as session:
            due = [_stored(row) for row in statements.rows(session, "due", limit=limit)]
            found = len(due)
            # Once for all, in the order that all callers use. These users cannot be deleted until the commit.
            gone = tombstones.buried(session, {item.user_id for item in due if item.user_id is not None})
            if gone:
                self.pause_of_users(session, gone)
                due = [schedule for schedule in due if schedule.user_id not in gone]
            made = self._fire(session, [(schedule, decide(_due(schedule))) for schedule in due]) if due else 0
            if made:
                statements.run(session, "announce", announcement=READY)
            seconds = statements.run(session, "next_due").scalar_one()
        return Firing(schedules=found, tasks=made, next_in_seconds=None if seconds is None else max(0.0, seconds))

    def _fire(self, session: Session, decided: Sequence[tuple[StoredSchedule, Plan]]) -> int:
        statements = self._statements
        runs = [(schedule, when, new_id()) for schedule, plan in decided for when in plan.runs]
        accepted: set[UUID] = set()
        if runs:
            rows = statements.rows(
                session,
                "add_ticks",
                schedule_ids=[str(schedule.id) for schedule, _, _ in runs],
                dues=[when for _, when, _ in runs],
                task_ids=[str(task_id) for _, _, task_id in runs],
            )
            accepted = {row.task_id for row in rows}
        made = [(schedule, task_id) for schedule, _, task_id in runs if task_id in accepted]
        insert_many(session, [schedule.new_task(task_id) for schedule, task_id in made], reach=Reach.all())
        last = {schedule.id: task_id for schedule, task_id in made}
        statements.run(
            session,
            "advance",
            ids=[str(schedule.id) for schedule, _ in decided],
            nexts=[plan.next_run_at for _, plan in decided],
            problems=[plan.problem for _, plan in decided],
            task_ids=[optional_text(last.get(schedule.id)) for schedule, _ in decided],
        )
        return len(accepted)


def _one_of(schedule_id: UUID, reach: Reach) -> dict[str, Any]:
    return {"id": str(schedule_id), "reach": optional_text(reach.owner)}


def _require_user(session: Session, user_id: UUID | None) -> None:
    """Raises `UserDeleted`, or keeps the user from being deleted until the transaction ends."""
    if user_id is not None and tombstones.buried(session, {user_id}):
        raise UserDeleted


def _due(schedule: StoredSchedule) -> DueSchedule:
    assert schedule.next_run_at is not None
    return DueSchedule(
        id=schedule.id,
        name=schedule.name,
        timing=schedule.timing,
        missed=schedule.missed,
        due_at=schedule.next_run_at,
        now=schedule.now,
    )


def _values(schedule: NewSchedule) -> dict[str, Any]:
    """The columns that `insert` and `update` write."""
    values = {field.name: getattr(schedule, field.name) for field in fields(NewSchedule)}
    timing = values.pop("timing")
    values.update({name: getattr(timing, name) for name in _TIMING})
    return {**values, "id": str(schedule.id), "user_id": optional_text(schedule.user_id)}


def _stored(row: Any) -> StoredSchedule:
    values = row._asdict()
    timing = Timing(**{name: values.pop(name) for name in _TIMING})
    return StoredSchedule(timing=timing, missed=Missed(values.pop("missed")), **values)


def _stored_or_none(row: Any) -> StoredSchedule | None:
    return None if row is None else _stored(row)
