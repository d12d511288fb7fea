"""Somebody keeps a row locked, as a transaction left open in psql does: all that has nothing to do with it goes on."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from service_tasks.domain.schedule import Plan
from service_tasks.domain.task import State
from service_tasks.persistence.maintenance_store import MaintenanceStore
from service_tasks.persistence.schedule_store import ScheduleStore
from service_tasks.task_types import GiveUp, TaskContext, task_type
from service_tasks.task_types.noop import noop
from servicekit.events.cloudevents import Event
from servicekit.events.inbox import Inbox
from servicekit.process.ids import new_id
from servicekit.wire.envelope import status_of
from servicekit.wire.errors import AppError
from tests.support.waiting import eventually

Locked = Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def locked(bench) -> Locked:
    """Give a function that keeps the rows of a table that fit a condition locked meanwhile."""

    @contextmanager
    def lock(rows: str) -> Iterator[None]:
        with bench.database.engine.connect() as connection:
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            assert connection.exec_driver_sql(f"SELECT FROM {rows} FOR UPDATE").rowcount > 0
            yield
            connection.rollback()

    return lock


@pytest.mark.parametrize("end", ["returns", "gives up"])
def test_outcomes_and_progress_do_not_wait_for_a_task_that_is_locked(bench, locked, start_worker, end):
    goes_on = threading.Event()

    @task_type("talks")
    async def talks(ctx: TaskContext, payload: object) -> str:
        spoken = 0
        while not goes_on.is_set():
            spoken += 1
            ctx.progress(spoken % 100)
            await asyncio.sleep(0.01)
        if end == "gives up":
            raise GiveUp("said enough")
        return "said"

    worker = start_worker(talks, noop)
    task_id, other = bench.add("talks"), bench.add("talks")
    for one in (task_id, other):
        bench.wait_for(one, State.RUNNING)

    with locked(f"tasks WHERE id = '{task_id}'"):
        for _ in range(3):
            bench.wait_for(bench.add(), State.COMPLETED)
        goes_on.set()
        bench.wait_for(other, State.COMPLETED if end == "returns" else State.FAILED)
        for _ in range(3):
            bench.wait_for(bench.add(), State.COMPLETED)
        # The worker forgets what has ended a moment after everybody can read it.
        eventually(lambda: (worker.worker.unwritten(), worker.worker.held) == (1, 1), what="nothing else to be written")
        assert bench.get(task_id).state is State.RUNNING

    task = bench.wait_for(task_id, State.COMPLETED, State.FAILED)
    assert (task.attempts, task.state) == (1, State.COMPLETED if end == "returns" else State.FAILED)


def test_tasks_are_rescued_while_the_row_of_a_worker_long_dead_is_locked(bench, locked, start_worker):
    long_dead, dead = bench.register(), bench.register(lease_seconds=1.0)
    task_id = bench.add()
    assert len(bench.claim(dead)) == 1
    for worker in (long_dead, dead):
        bench.silence(worker)

    with locked(f"workers WHERE id = '{long_dead}'"):
        start_worker(noop, lease_seconds=1.0)
        task = bench.wait_for(task_id, State.COMPLETED)

    assert [error["type"] for error in json.loads(task.errors)] == ["WorkerLost"]


def test_what_the_leader_does_is_done_while_its_row_is_locked(bench, locked, start_worker):
    start_worker(noop)
    eventually(lambda: bench.sql("SELECT FROM leaders"), what="a leader")

    with locked("leaders"):
        # Beyond the term that it has.
        for _ in range(4):
            task_id = bench.add(execute_at=bench.sql("SELECT now() + interval '0.5 s'")[0][0])
            bench.wait_for(task_id, State.COMPLETED)


def test_the_deletion_of_a_user_whose_task_is_locked_waits_by_itself(bench, locked):
    users = [uuid4(), uuid4()]
    held, other = (bench.add(user_id=user) for user in users)
    events = [
        Event(type="user.deleted", subject=user, data={"id": str(user)}, time=datetime.now(UTC)) for user in users
    ]
    inbox = Inbox(bench.database, {"user.deleted": bench.user_deleted})

    with locked(f"tasks WHERE id = '{held}'"):
        with pytest.raises(AppError) as refused:
            inbox.take(events)
        # What a relay takes for a fault that this event meets and others need not; 503 or 504 would hold up them all.
        assert status_of(refused.value) == 500
        assert inbox.take(events[1:]).processed == 1
        assert [bench.get(task_id).state for task_id in (held, other)] == [State.READY, State.CANCELLED]

    assert inbox.take(events).processed == 1
    assert bench.get(held).state is State.CANCELLED


OLD = {
    "schedule_ticks": "INSERT INTO schedule_ticks (schedule_id, due_at, task_id)"
    " SELECT gen_random_uuid(), now() - interval '30 days', gen_random_uuid() FROM generate_series(1, 2)",
    "task_minutes": "INSERT INTO task_minutes (minute, worker_id, task_type, completed, failed, retried, waits, runs)"
    " SELECT now() - interval '30 days', gen_random_uuid(), 'noop', 0, 0, 0, '{}', '{}' FROM generate_series(1, 2)",
    "ingested_messages": "INSERT INTO ingested_messages (source, message_id, task_id, received_at)"
    " SELECT 'q', n::text, gen_random_uuid(), now() - interval '30 days' FROM generate_series(1, 2) n",
    "rejected_messages": "INSERT INTO rejected_messages (id, source, reason, details, body, size)"
    " SELECT gen_random_uuid(), 'q', 'invalid_json', '[]', '', 0 FROM generate_series(1, 2)",
}
PRUNE = {
    "schedule_ticks": lambda store: store.prune_ticks(keep_seconds=86400.0, limit=10),
    "task_minutes": lambda store: store.prune_minutes(keep_seconds=86400.0, limit=10),
    "ingested_messages": lambda store: store.prune_messages(keep_seconds=86400.0, limit=10),
    "rejected_messages": lambda store: store.prune_rejections(most=0, limit=10),
}


@pytest.mark.parametrize("table", OLD)
def test_old_records_are_removed_around_one_that_is_locked(bench, locked, table):
    bench.sql(OLD[table])

    with locked(f"{table} WHERE ctid = (SELECT min(ctid) FROM {table})"):
        assert PRUNE[table](MaintenanceStore(bench.database)) == 1


def test_a_due_task_that_is_locked_is_not_asked_for_without_a_pause(bench, locked):
    task_id = bench.add(execute_at=datetime.now(UTC) + timedelta(hours=1))
    later = bench.add(execute_at=datetime.now(UTC) + timedelta(hours=2))
    bench.sql("UPDATE tasks SET execute_at = now() WHERE id = %s", str(task_id))

    with locked(f"tasks WHERE id = '{task_id}'"):
        promotion = bench.engine.promote(10)

    assert promotion.promoted == 0
    assert promotion.next_in_seconds > 3600, later


def test_a_due_schedule_that_is_locked_is_not_asked_for_without_a_pause(bench, locked):
    schedule_id = new_id()
    bench.sql(
        """INSERT INTO schedules (id, name, task_type, payload, priority, max_attempts, every_seconds, anchor_at,
                                  missed, next_run_at)
           VALUES (%s, 'locked', 'noop', '{}', 50, 3, 60, now(), 'skip', now())""",
        str(schedule_id),
    )

    with locked(f"schedules WHERE id = '{schedule_id}'"):
        firing = ScheduleStore(bench.database).fire(10, lambda due: Plan((), None, None))

    assert (firing.schedules, firing.next_in_seconds) == (0, None)
