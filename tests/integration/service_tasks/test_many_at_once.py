"""Many claimers, many writers and a long reader at once: nothing runs twice, nobody waits in a circle."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID, uuid4

from service_tasks.domain.task import (
    AttemptError,
    FailedForGood,
    HandedBack,
    Lease,
    LostTask,
    Outcome,
    Progress,
    Succeeded,
    WillRetry,
)
from service_tasks.engine.ports import Retention
from service_tasks.persistence.maintenance_store import MaintenanceStore
from service_tasks.persistence.queries import load_queries
from servicekit.events.cloudevents import Event
from servicekit.identity.reach import Reach
from tests.integration.service_tasks.conftest import new_task
from tests.support.task_workers import ForkedWorker
from tests.support.waiting import eventually

ERROR = AttemptError("Broken", "it broke")


def user_deleted(user: UUID) -> Event:
    now = datetime.now(UTC)
    return Event(type="user.deleted", subject=user, data={"id": str(user)}, time=now)


def test_eight_worker_processes_run_each_of_20_000_tasks_once(bench, tasks_database, tmp_path):
    payload = json.dumps({"folder": str(tmp_path)})
    tasks = [new_task("runs", payload=payload) for _ in range(20_000)]
    bench.store.add_many(tasks[:10_000], reach=Reach.all())
    # On a busy machine eight processes get their turn late; none of them is to be taken for dead.
    options = {"WORKER_CONCURRENCY": "500", "WORKER_LEASE_SECONDS": "60"}
    workers = [ForkedWorker(tmp_path, tasks_database.url, ("runs",), **options) for _ in range(8)]
    try:
        # The second half while they work.
        bench.store.add_many(tasks[10_000:], reach=Reach.all())
        left = "SELECT count(*) FROM tasks WHERE state <> 'completed'"
        eventually(lambda: bench.sql(left) == [(0,)], timeout=60, what="all are completed")
    finally:
        for worker in workers:
            worker.end()

    ran = [line.split() for line in (tmp_path / "journal").read_text(encoding="utf-8").splitlines()]
    assert Counter(task_id for _, task_id, _, _ in ran) == Counter(str(task.id) for task in tasks)
    assert bench.sql("SELECT DISTINCT attempts, lease_no FROM tasks") == [(1, 1)]
    # And more than one of them had a part in it.
    assert len({pid for *_, pid in ran}) > 1


# Deadlocks


def waits_for_a_lock(bench, statement: str) -> None:
    eventually(
        lambda: bench.sql(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            " AND query LIKE %s",
            f"%{statement}%",
        ),
        what=f"{statement} waits",
    )


def test_outcomes_of_several_kinds_and_the_deletion_of_their_user_do_not_wait_in_a_circle(bench):
    user = uuid4()
    first, between, last = sorted(bench.add(user_id=user) for _ in range(3))
    leases = {task.lease.task_id: task.lease for task in bench.claim(bench.register())}
    with ThreadPoolExecutor(2) as threads, bench.database.engine.connect() as holder:
        # The deletion has the first and waits for the one between; the outcomes would have the last, then the first.
        holder.exec_driver_sql("SELECT FROM tasks WHERE id = %s FOR UPDATE", (str(between),))
        deletion = threads.submit(delete, bench, user)
        waits_for_a_lock(bench, "FOR UPDATE")
        writing = threads.submit(
            bench.engine.write, [Succeeded(leases[last], "1"), FailedForGood(leases[first], ERROR)], "w"
        )
        waits_for_a_lock(bench, "x.lease_no")
        holder.rollback()
        deletion.result(30)
        assert writing.result(30) <= set(leases.values())

    assert deadlocks(bench) == 0


def test_batches_over_the_same_tasks_in_every_order_never_deadlock(bench):
    """Late results and those in time, progress, rescues, deletions of users, the pruner: over sixty tasks at once."""
    users = [uuid4() for _ in range(30)]
    maintenance = MaintenanceStore(bench.database)
    leases: list[Lease] = []
    for _ in range(2):
        # Each is held by two: by one since it was claimed, by the other since before it was handed back.
        worker = bench.register(lease_seconds=0.01)
        if not leases:
            for user in users * 2:
                bench.add(user_id=user)
        else:
            bench.engine.write([HandedBack(lease) for lease in leases], "w")
        leases += [task.lease for task in bench.claim(worker, limit=60)]
        bench.silence(worker)

    def decide(task: LostTask) -> Outcome:
        return HandedBack(task.lease) if task.lease.number % 2 else WillRetry(task.lease, task.lost_at, ERROR)

    def outcome(number: int, lease: Lease) -> Outcome:
        return (Succeeded(lease, "1"), FailedForGood(lease, ERROR), HandedBack(lease))[number % 3]

    def round_of(number: int) -> list[Callable[[], object]]:
        some = leases[number::8] + leases[::-1][number::8]
        return [
            lambda: bench.engine.write([outcome(number + place, lease) for place, lease in enumerate(some)], "w"),
            lambda: bench.engine.write_progress([Progress(lease, number, None) for lease in leases[::-1]]),
            lambda: bench.engine.rescue(lease_seconds=0.0, limit=7, rescuer="r", decide=decide),
            lambda: delete(bench, users[number]),
            lambda: maintenance.prune_tasks(Retention(0.0, 0.0, 0.0), after=None, limit=9),
            lambda: leases.extend(task.lease for task in bench.claim(bench.register(lease_seconds=0.01), limit=20)),
        ]

    with ThreadPoolExecutor(8) as threads:
        doing = [threads.submit(do) for number in range(20) for do in round_of(number)]
        for done in doing:
            done.result(60)

    assert deadlocks(bench) == 0


# A snapshot that somebody holds


def test_under_a_held_snapshot_every_task_is_claimed_and_completed_once_through_the_index(bench, tasks_database):
    """A report or a backup that takes its time: nothing that ends can be vacuumed meanwhile."""
    with bench.database.engine.connect() as reader:
        reader.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
        assert reader.exec_driver_sql("SELECT count(*) FROM tasks").scalar_one() == 0
        worker, taken = bench.register(), Counter()
        for _ in range(5):
            bench.store.add_many([new_task() for _ in range(1000)], reach=Reach.all())
            while claimed := bench.claim(worker, limit=500):
                taken.update(task.lease for task in claimed)
                assert len(bench.engine.write([Succeeded(task.lease, "1") for task in claimed], "w")) == len(claimed)
        tasks_database.administer("VACUUM tasks")
        bench.add()
        behind = buffers_of_a_claim(bench, worker)
        assert reader.exec_driver_sql("SELECT count(*) FROM tasks").scalar_one() == 0
    tasks_database.administer("VACUUM tasks")

    assert (len(taken), taken.total()) == (5000, 5000)
    # By pages, not by the clock: a claim steps over the dead by the page, and over none once the reader has gone.
    after = buffers_of_a_claim(bench, worker)
    assert after < behind < 1000


def buffers_of_a_claim(bench, worker: UUID) -> int:
    """Pages that a claim looks at; it is undone."""
    parameters = {"types": ["noop"], "timeouts": [60.0], "limit": 500, "worker_id": str(worker)}
    with bench.database.transaction() as session:
        (plan,) = (
            session.connection()
            .exec_driver_sql("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + load_queries()["claim"], parameters)
            .scalar_one()
        )
        session.rollback()
    assert "ix_tasks_ready" in str(plan)
    return plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]


def delete(bench, user: UUID) -> None:
    with bench.database.transaction() as session:
        bench.user_deleted(session, user_deleted(user))


def deadlocks(bench) -> int:
    bench.sql("SELECT pg_stat_force_next_flush()")
    return bench.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")[0][0]
