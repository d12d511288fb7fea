"""One leader at a time, and the removal of old tasks, on a real PostgreSQL."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from service_tasks.engine.leader import Leadership
from service_tasks.engine.ports import Retention
from service_tasks.engine.pruner import Pruner
from service_tasks.persistence.maintenance_store import MaintenanceStore
from service_tasks.task_types.noop import noop
from servicekit.process.ids import new_id
from tests.support.waiting import eventually

DAY = 86_400.0
LIMITS = Retention(completed_seconds=30 * DAY, failed_seconds=90 * DAY, cancelled_seconds=None)


@pytest.fixture
def maintenance(bench) -> MaintenanceStore:
    return MaintenanceStore(bench.database)


# Leading


def test_one_of_many_leads(maintenance):
    terms: dict[UUID, bool] = {}
    workers = [uuid4() for _ in range(8)]
    barrier = threading.Barrier(len(workers))

    def ask(worker: UUID) -> None:
        barrier.wait(30)
        terms[worker] = maintenance.lead(worker, 60.0).leads

    threads = [threading.Thread(target=ask, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(terms.values()) == [False] * 7 + [True]
    (leader,) = [worker for worker, leads in terms.items() if leads]
    assert maintenance.lead(leader, 60.0).leads
    other = maintenance.lead(uuid4(), 60.0)
    assert not other.leads
    assert 50 < other.ends_in_seconds <= 60


def test_a_leader_is_followed_as_soon_when_the_database_clock_was_set_back(bench, maintenance):
    first, second = uuid4(), uuid4()
    maintenance.lead(first, 3.0)
    # As it looks after the clock went back by ten minutes.
    bench.sql(
        "UPDATE leaders SET elected_at = elected_at + interval '10 min', expires_at = expires_at + interval '10 min'"
    )

    assert maintenance.lead(second, 3.0).leads
    assert not maintenance.lead(first, 3.0).leads


def test_a_silent_leader_is_followed_and_one_that_resigns_at_once(bench, maintenance):
    first, second, third = uuid4(), uuid4(), uuid4()
    maintenance.lead(first, 60.0)
    bench.sql("UPDATE leaders SET expires_at = now() - interval '1 ms'")

    assert maintenance.lead(second, 60.0).leads
    assert not maintenance.lead(first, 60.0).leads
    maintenance.resign(first)
    assert not maintenance.lead(third, 60.0).leads
    maintenance.resign(second)
    assert maintenance.lead(third, 60.0).leads


class Hand:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def leadership(store, elected, hand) -> Leadership:
    return Leadership(
        store=store,
        worker_id=uuid4(),
        on_elected=lambda: elected.append(1),
        on_death=lambda: pytest.fail("died"),
        lease_seconds=3.0,
        monotonic=hand,
    )


def test_a_leader_that_was_stopped_knows_by_its_own_clock_that_its_term_is_over(bench, maintenance):
    elected: list[int] = []
    hand = Hand()
    stopped, other = leadership(maintenance, elected, hand), leadership(maintenance, elected, hand)
    assert 0.5 <= stopped.work() <= 1.5
    assert stopped.leads()
    other.work()
    assert not other.leads()

    hand.now += 3.0
    bench.sql("UPDATE leaders SET expires_at = now()")
    assert not stopped.leads()
    other.work()
    stopped.work()

    assert (stopped.leads(), other.leads()) == (False, True)
    assert len(elected) == 2
    other.stop()
    stopped.work()
    assert stopped.leads()


def test_the_duties_go_on_when_the_leading_worker_stops(bench, start_worker):
    first = start_worker(noop)
    eventually(lambda: bench.sql("SELECT 1 FROM leaders"), timeout=10, what="a leader")
    start_worker(noop)
    assert first.stop() == 0

    task_id = bench.add(execute_at=bench.sql("SELECT now() + interval '0.2 s'")[0][0])

    assert bench.wait_for(task_id, "completed").attempts == 1
    assert bench.sql("SELECT worker_id FROM leaders") != [(first.worker.info.id,)]


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_schedules_go_on_when_the_leading_process_is_stopped_or_killed(bench, start_process, number):
    processes = [start_process(), start_process()]
    bench.sql(
        """INSERT INTO schedules (id, name, task_type, payload, priority, max_attempts, every_seconds, anchor_at,
                                  missed, next_run_at)
           VALUES (gen_random_uuid(), 'every second', 'noop', '{}', 50, 3, 1, now(),
                   'run_all', now() + interval '1 s')"""
    )

    def leader() -> int | None:
        rows = bench.sql("SELECT split_part(name, ':', 2)::int FROM leaders l JOIN workers w ON w.id = l.worker_id")
        return rows[0][0] if rows else None

    def ticks() -> int:
        return bench.sql("SELECT count(*) FROM schedule_ticks")[0][0]

    eventually(lambda: ticks() >= 1 and bench.sql("SELECT count(*) FROM workers") == [(2,)], timeout=20, what="a run")
    first = leader()
    (hit,) = [process for process in processes if process.process.pid == first]
    hit.process.send_signal(number)
    eventually(lambda: leader() not in {first, None}, timeout=30, what="another leader")
    before = ticks()
    eventually(lambda: ticks() >= before + 3, timeout=20, what="three more runs")
    if number == signal.SIGSTOP:
        hit.process.send_signal(signal.SIGCONT)
        after = ticks()
        eventually(lambda: ticks() >= after + 2, timeout=20, what="runs beside the old leader")

    bench.sql("DELETE FROM schedules")
    # Every second had its run, none had two.
    (number_of_ticks, span, tasks) = bench.sql(
        "SELECT count(*), extract(epoch FROM max(due_at) - min(due_at))::int, (SELECT count(*) FROM tasks)"
        " FROM schedule_ticks"
    )[0]
    assert number_of_ticks == span + 1 == tasks


# Pruning


def ended(bench, state: str, days: float, *, kept: bool) -> tuple[UUID, bool]:
    """A task that ended so many days ago, its id as old as itself."""
    task_id = bench.add()
    (old,) = bench.sql(
        "SELECT overlay(%s placing lpad(to_hex((extract(epoch FROM now() - make_interval(secs => %s)) * 1000)::bigint),"
        " 12, '0') from 1 for 12)::uuid",
        new_id().hex,
        days * DAY,
    )[0]
    bench.sql(
        "UPDATE tasks SET id = %s, state = s.state,"
        " result = CASE WHEN s.state = 'completed' THEN 'null'::jsonb END,"
        " completed_at = CASE WHEN s.state IN ('completed', 'failed', 'cancelled') THEN"
        " now() - make_interval(secs => %s) END FROM (SELECT %s AS state) s WHERE id = %s",
        str(old), days * DAY, state, str(task_id),
    )  # fmt: skip
    return old, kept


def pruner(store, retention=LIMITS, *, leads=True, batch=2, **more) -> Pruner:
    return Pruner(
        store=store,
        retention=retention,
        leads=lambda: leads,
        on_death=lambda: pytest.fail("died"),
        batch=batch,
        round_seconds=300.0,
        **more,
    )


def one_round(duty: Pruner) -> None:
    for _ in range(100):
        if duty.work() > 200:
            return
    pytest.fail("the round does not end")


def test_what_ended_longer_ago_than_its_status_is_kept_goes_and_nothing_else(bench, maintenance):
    tasks = dict(
        [
            ended(bench, "completed", 31, kept=False),
            ended(bench, "completed", 30.5, kept=False),
            ended(bench, "completed", 29.5, kept=True),
            ended(bench, "completed", 0, kept=True),
            ended(bench, "failed", 31, kept=True),
            ended(bench, "failed", 91, kept=False),
            ended(bench, "cancelled", 400, kept=True),
            ended(bench, "ready", 400, kept=True),
            ended(bench, "scheduled", 400, kept=True),
        ]
    )

    one_round(pruner(maintenance))

    assert {row[0] for row in bench.sql("SELECT id FROM tasks")} == {task for task, kept in tasks.items() if kept}


@pytest.mark.parametrize("options", [{"leads": False}, {"retention": Retention(None, None, None)}])
def test_nothing_goes_in_a_worker_that_does_not_lead_or_when_all_is_kept(bench, maintenance, options):
    ended(bench, "completed", 4000, kept=True)

    one_round(pruner(maintenance, **options))

    assert bench.sql("SELECT count(*) FROM tasks")[0][0] == 1


def test_two_pruners_at_once_remove_each_task_once(bench, maintenance):
    for days in range(40, 80):
        ended(bench, "completed", days, kept=False)
    young, _ = ended(bench, "completed", 1, kept=True)
    threads = [threading.Thread(target=one_round, args=(pruner(maintenance, batch=7),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    one_round(pruner(maintenance))
    assert bench.sql("SELECT id FROM tasks") == [(young,)]


def test_old_records_of_runs_go_in_batches(bench, maintenance):
    bench.sql(
        "INSERT INTO schedule_ticks SELECT gen_random_uuid(), now() - n * interval '1 day', gen_random_uuid()"
        " FROM generate_series(1, 20) n"
    )

    one_round(pruner(maintenance))

    # Seven days, and the seventh is as old as the limit or older by now.
    assert bench.sql("SELECT count(*) FROM schedule_ticks")[0][0] == 6


def test_ids_of_messages_are_forgotten_after_their_time_in_batches(bench, maintenance):
    bench.sql(
        "INSERT INTO ingested_messages SELECT 'task_queue', n::text, gen_random_uuid(), now() - n * interval '1 day'"
        " FROM generate_series(1, 40) n"
    )

    one_round(pruner(maintenance))
    assert bench.sql("SELECT count(*) FROM ingested_messages")[0][0] == 40

    one_round(pruner(maintenance, replace(LIMITS, messages_seconds=30 * DAY)))
    # The thirtieth is as old as the limit or older by now.
    assert bench.sql("SELECT count(*), max(message_id::int) FROM ingested_messages") == [(29, 29)]


def test_of_too_many_rejected_messages_the_oldest_go(bench, maintenance):
    rejected = [new_id() for _ in range(12)]
    for id in rejected:
        bench.sql(
            "INSERT INTO rejected_messages (id, source, reason, details, body, size)"
            " VALUES (%s, 'task_queue', 'no', '[]', '', 0)",
            str(id),
        )

    one_round(pruner(maintenance, most_rejections=7))

    assert [row[0] for row in bench.sql("SELECT id FROM rejected_messages ORDER BY id")] == rejected[5:]
