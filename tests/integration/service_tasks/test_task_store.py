"""The statements that are the algorithm, against a real PostgreSQL, in every order that hurts."""

from __future__ import annotations

import json
import threading
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import make_url

from service_tasks.domain.schedule import Missed, Timing
from service_tasks.domain.task import (
    MAX_KEPT_ERRORS,
    AttemptError,
    FailedForGood,
    HandedBack,
    Lease,
    Progress,
    State,
    StoppedAfterCancel,
    Succeeded,
    WillRetry,
)
from service_tasks.domain.watched import WatchedTask
from service_tasks.engine.ports import Offer
from service_tasks.errors import UniqueKeyTaken
from service_tasks.persistence.announcer import Announcer
from service_tasks.persistence.dedicated_connections import DedicatedConnections
from service_tasks.persistence.engine_store import ClaimedRow
from service_tasks.persistence.message_store import MessageStore
from service_tasks.persistence.queries import load_queries
from service_tasks.persistence.schedule_store import ScheduleStore
from service_tasks.persistence.wake_ups import PostgresWakeUps
from service_tasks.use_cases.schedules import StoredSchedule
from service_tasks.use_cases.tasks import NO_TASKS, Control, PastExecuteAt, Selection, StoredTask, TasksFound
from servicekit.database.engine import Database, DatabaseTooSlow
from servicekit.events.relay import REMEMBER_DAYS
from servicekit.events.relay_store import RelayStore
from servicekit.identity.reach import Reach
from servicekit.process.ids import new_id
from servicekit.wire.errors import DatabaseLocked, DatabaseUnavailable, Invalid
from tests.integration.service_tasks.conftest import new_task
from tests.support.plans import scans_of
from tests.support.wire import Wire

# Shorter than the server of these tests has been up: no one is rescued while that has not lasted a lease.
SHORT = 0.01
ERROR = AttemptError("Broken", "it broke")


def rescue(bench, *, lease_seconds=0.0, decide=lambda task: HandedBack(task.lease)):
    return bench.engine.rescue(lease_seconds=lease_seconds, limit=500, rescuer="rescuer", decide=decide)


def everything(**changes) -> Selection:
    usual = {"states": None, "task_type": None, "user_id": None, "after": None, "limit": 50, "offset": 0}
    return Selection(**{**usual, **changes})


# Claiming


def test_a_claim_takes_the_most_urgent_first_and_no_more_than_asked(bench):
    low = bench.add(priority=10)
    high = bench.add(priority=90)
    older, younger = bench.add(), bench.add()
    worker = bench.register()

    first = bench.claim(worker, limit=3)

    assert [task.lease.task_id for task in first] == [high, older, younger]
    assert [(task.attempt, task.lease.number) for task in first] == [(1, 1)] * 3
    assert [task.lease.task_id for task in bench.claim(worker)] == [low]
    assert bench.claim(worker) == []


def test_a_claim_takes_the_most_urgent_over_all_its_types_and_none_of_another(bench):
    bench.add("c", priority=100)
    a, b = bench.add("a", priority=60), bench.add("b", priority=70)
    bench.add("a", priority=1)

    claimed = bench.claim(bench.register(), "a", "b", limit=2)

    assert [task.lease.task_id for task in claimed] == [b, a]


def test_the_timeout_of_the_task_goes_before_that_of_the_type(bench):
    bench.add(timeout_seconds=7.5)
    bench.add()

    assert [task.timeout_seconds for task in bench.claim(bench.register())] == [7.5, 60.0]


def test_a_waiting_task_gains_a_point_of_priority_a_minute(bench):
    fresh = bench.add(priority=50)
    old = bench.add(priority=20)
    too_young = bench.add(priority=20)
    bench.sql("UPDATE tasks SET execute_at = now() - interval '31 minutes' WHERE id = %s", str(old))
    bench.sql("UPDATE tasks SET execute_at = now() - interval '29 minutes' WHERE id = %s", str(too_young))

    assert [task.lease.task_id for task in bench.claim(bench.register())] == [old, fresh, too_young]


# Limits


def limit(bench, name="noop", **changes):
    bench.store.control(name, changes)
    bench.engine._limited_until = 0.0


def test_a_paused_type_is_not_claimed_and_a_resumed_one_is(bench):
    task_id, other = bench.add(), bench.add("other")
    worker = bench.register()
    limit(bench, paused=True, max_running=5)
    assert [task.lease.task_id for task in bench.claim(worker, "noop", "other")] == [other]

    limit(bench, paused=False)
    assert bench.store.controls() == {"noop": Control(False, 5, None)}
    assert [task.lease.task_id for task in bench.claim(worker)] == [task_id]


def test_a_limit_holds_over_all_workers_and_counts_what_runs(bench):
    for _ in range(5):
        bench.add()
    limit(bench, max_running=2)
    first, second = bench.register(), bench.register(lease_seconds=SHORT)

    (one,) = bench.claim(first, limit=1)
    (two,) = bench.claim(second)
    assert bench.claim(first) == bench.claim(second) == []
    bench.engine.write([Succeeded(one.lease, "1")], "w")
    assert len(bench.claim(first)) == 1

    # A dead worker's task is taken from it although the limit is reached, and frees its place.
    bench.silence(second)
    assert [outcome.lease for outcome in rescue(bench)] == [two.lease]
    assert len(bench.claim(first)) == 1
    assert bench.claim(first) == []


def test_many_claimers_never_go_over_a_limit(bench):
    for _ in range(60):
        bench.add()
    limit(bench, max_running=7)
    workers = [bench.register() for _ in range(6)]
    counts: list[int] = []

    def claim_some(worker):
        for _ in range(8):
            claimed = bench.claim(worker, limit=4)
            counts.append(bench.sql("SELECT count(*) FROM tasks WHERE state = 'running'")[0][0])
            bench.engine.write([Succeeded(task.lease, "1") for task in claimed], "w")

    threads = [threading.Thread(target=claim_some, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(counts) == 48
    assert 0 < max(counts) <= 7


def test_a_limit_for_each_user_lets_every_user_run(bench):
    anna, boris = uuid4(), uuid4()
    many = [bench.add(user_id=anna, priority=90) for _ in range(50)]
    theirs = [bench.add(user_id=boris, priority=10) for _ in range(3)]
    nobodys = [bench.add(priority=1) for _ in range(4)]
    limit(bench, max_running_per_user=2)
    worker = bench.register()

    claimed = [task.lease.task_id for task in bench.claim(worker, limit=50)]

    assert claimed == [*many[:2], *theirs[:2], *nobodys]
    assert bench.claim(worker, limit=50) == []


def test_limits_for_users_and_for_the_type_hold_together(bench):
    users = [uuid4() for _ in range(5)]
    for user in users * 3:
        bench.add(user_id=user)
    limit(bench, max_running=4, max_running_per_user=1)

    claimed = bench.claim(bench.register(), limit=50)

    assert len(claimed) == 4
    (running,) = bench.sql("SELECT count(DISTINCT user_id) FROM tasks WHERE state = 'running'")[0]
    assert running == 4


def test_a_limit_that_the_type_declares_holds_unless_people_have_set_another(bench):
    declared = [Offer("noop", 60.0, max_running=3, max_running_per_user=2)]
    anna = uuid4()
    for _ in range(6):
        bench.add(user_id=anna)
        bench.add(user_id=uuid4())
    worker, other = bench.register(), bench.register()

    users = [bench.get(task.lease.task_id).user_id for task in bench.engine.claim(worker, declared, 2)]
    users += [bench.get(task.lease.task_id).user_id for task in bench.engine.claim(other, declared, 10)]
    assert len(users) == 3
    assert users.count(anna) == 2
    assert bench.engine.claim(worker, declared, 10) == []

    limit(bench, max_running=5)
    claimed = bench.engine.claim(other, declared, 10)
    assert [bench.get(task.lease.task_id).user_id == anna for task in claimed] == [False, False]
    limit(bench, max_running=None, paused=True)
    bench.engine.write([Succeeded(task.lease, "1") for task in claimed], "w")
    assert bench.engine.claim(worker, declared, 10) == []


def test_many_claimers_never_go_over_a_limit_that_the_type_declares(bench):
    declared = [Offer("noop", 60.0, max_running=3), Offer("free", 60.0)]
    for _ in range(40):
        bench.add()
    for _ in range(20):
        bench.add("free")
    workers = [bench.register(types=("noop", "free")) for _ in range(5)]
    counts: list[int] = []
    taken: list[Lease] = []

    def claim_some(worker):
        for _ in range(8):
            claimed = bench.engine.claim(worker, declared, 4)
            taken.extend(task.lease for task in claimed)
            counts.append(bench.sql("SELECT count(*) FROM tasks WHERE state = 'running' AND task_type = 'noop'")[0][0])
            bench.engine.write([Succeeded(task.lease, "1") for task in claimed], "w")

    threads = [threading.Thread(target=claim_some, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(counts) == 40
    assert 0 < max(counts) <= 3
    assert len(set(taken)) == len(taken) > 40


def test_limited_and_unlimited_types_leave_places_to_each_other(bench):
    for _ in range(20):
        bench.add("a")
        bench.add("b")
    limit(bench, "a", max_running=100)

    types = sorted(task.task_type for task in bench.claim(bench.register(), "a", "b", limit=10))

    assert types == ["a"] * 5 + ["b"] * 5


@pytest.mark.parametrize("trouble", [DatabaseUnavailable, DatabaseTooSlow, DatabaseLocked])
def test_what_is_claimed_is_kept_when_the_look_at_the_limits_behind_it_fails(bench, monkeypatch, trouble):
    worker = bench.register()
    bench.claim(worker)
    task_id = bench.add()

    def fail() -> None:
        raise trouble

    monkeypatch.setattr(bench.engine, "_newly_limited", fail)

    assert [task.lease.task_id for task in bench.claim(worker)] == [task_id]


# Batches and unique keys


def test_a_batch_is_stored_with_everything_that_was_said(bench):
    user = uuid4()
    when = datetime.now(UTC) + timedelta(hours=1)
    plain = new_task()
    full = new_task(
        'paint "кран", {a}',
        title='Дом №7, "левый" \\ {подъезд}',
        user_id=user,
        payload='{"a": [1.50, null, "б,}"]}',
        priority=7,
        max_attempts=2,
        timeout_seconds=1.5,
        execute_at=when,
        unique_key='k,"1"',
    )

    assert bench.store.add_many([plain, full], reach=Reach.all()) == {}

    stored = bench.get(full.id)
    assert (stored.state, stored.task_type, stored.title, stored.user_id) == (
        State.SCHEDULED,
        full.task_type,
        full.title,
        user,
    )
    assert (stored.priority, stored.max_attempts, stored.timeout_seconds, stored.execute_at, stored.unique_key) == (
        7,
        2,
        1.5,
        when,
        'k,"1"',
    )
    assert stored.payload == '{"a": [1.50, null, "б,}"]}'
    assert (bench.get(plain.id).state, bench.get(plain.id).title) == (State.READY, None)


def test_a_batch_with_a_time_in_the_past_stores_nothing_and_names_it(bench):
    tasks = [new_task() for _ in range(3)]
    tasks[2] = new_task(execute_at=datetime.now(UTC) - timedelta(seconds=1))

    with pytest.raises(PastExecuteAt) as refused:
        bench.store.add_many(tasks, reach=Reach.all())

    assert refused.value.index == 2
    assert listed(bench).total == 0


def test_a_large_batch_goes_in_several_statements_and_one_transaction(bench):
    tasks = [new_task(payload='"' + "x" * size + '"') for size in [10] * 2500 + [5_000_000] * 3]

    bench.store.add_many(tasks, reach=Reach.all())

    assert bench.sql("SELECT count(*), count(DISTINCT created_at) FROM tasks") == [(2503, 1)]


def test_at_most_one_live_task_has_a_unique_key(bench):
    first = bench.add(unique_key="k")
    assert bench.store.add(new_task(unique_key="k")) is None
    assert bench.store.by_unique_key("k", reach=Reach.all()).id == first

    (claimed,) = bench.claim(bench.register())
    assert bench.store.add(new_task(unique_key="k")) is None
    bench.engine.write([FailedForGood(claimed.lease, ERROR)], "w")
    assert bench.store.by_unique_key("k", reach=Reach.all()) is None

    second = bench.add(unique_key="k")
    with pytest.raises(UniqueKeyTaken):
        bench.store.retry(first, reach=Reach.all())
    bench.store.cancel(second, reach=Reach.all())
    assert bench.store.retry(first, reach=Reach.all()) is not None


def test_a_batch_gives_the_live_tasks_of_keys_that_are_taken(bench):
    alive = bench.add(unique_key="a")
    taken, fresh, double, none = (new_task(unique_key=key) for key in ("a", "b", "b", None))

    answer = bench.store.add_many([taken, fresh, double, none], reach=Reach.all())

    assert answer == {taken.id: alive, double.id: fresh.id}
    assert listed(bench).total == 3


def test_batches_with_the_same_keys_at_once_make_each_task_once_and_never_deadlock(bench):
    keys = [f"k{n}" for n in range(200)]
    answers: list = []

    def add(order):
        answers.append(bench.store.add_many([new_task(unique_key=key) for key in order], reach=Reach.all()))

    threads = [threading.Thread(target=add, args=(keys if n % 2 else keys[::-1],)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sum(200 - len(answer) for answer in answers) == 200
    assert len(answers) == 6


# Outcomes and their fence


def test_outcomes_of_every_kind_are_written_in_one_batch(bench):
    done, again, lost, back = (bench.add() for _ in range(4))
    leases = {task.lease.task_id: task.lease for task in bench.claim(bench.register())}
    when = datetime.now(UTC) + timedelta(hours=1)

    accepted = bench.engine.write(
        [
            Succeeded(leases[done], json.dumps({"name": "Белов"})),
            WillRetry(leases[again], when, ERROR),
            FailedForGood(leases[lost], ERROR),
            HandedBack(leases[back]),
        ],
        "w1",
    )

    assert accepted == set(leases.values())
    completed = bench.get(done)
    assert (completed.state, json.loads(completed.result), completed.progress_percent) == (
        State.COMPLETED,
        {"name": "Белов"},
        100,
    )
    assert completed.duration is not None
    retried = bench.get(again)
    assert (retried.state, retried.execute_at, retried.error, retried.completed_at) == (
        State.SCHEDULED,
        when,
        "it broke",
        None,
    )
    failed = bench.get(lost)
    assert (failed.state, failed.attempts) == (State.FAILED, 1)
    (entry,) = json.loads(failed.errors)
    assert {key: entry[key] for key in ("attempt", "type", "message", "worker")} == {
        "attempt": 1,
        "type": "Broken",
        "message": "it broke",
        # Whose attempt it was, whoever writes it.
        "worker": "a worker",
    }
    handed_back = bench.get(back)
    assert (handed_back.state, handed_back.attempts) == (State.READY, 0)


def test_a_result_that_comes_after_the_rescue_changes_nothing(bench):
    task_id = bench.add()
    worker = bench.register(lease_seconds=SHORT)
    (first,) = bench.claim(worker)
    bench.silence(worker)
    assert len(rescue(bench)) == 1
    (second,) = bench.claim(bench.register())

    assert bench.engine.write([Succeeded(first.lease, '"late"')], "w1") == set()
    assert bench.engine.write([FailedForGood(first.lease, ERROR)], "w1") == set()
    assert bench.engine.write([HandedBack(first.lease)], "w1") == set()
    bench.engine.write_progress([Progress(first.lease, 99, "late")])
    assert (bench.get(task_id).state, bench.get(task_id).progress_percent) == (State.RUNNING, 0)

    assert bench.engine.write([Succeeded(second.lease, '"good"')], "w2") == {second.lease}
    assert bench.get(task_id).result == '"good"'


def test_a_rescue_that_comes_after_the_result_changes_nothing(bench):
    task_id = bench.add()
    worker = bench.register(lease_seconds=SHORT)
    (claimed,) = bench.claim(worker)
    bench.silence(worker)
    bench.engine.write([Succeeded(claimed.lease, '"good"')], "w1")

    assert rescue(bench) == []
    assert bench.get(task_id).state is State.COMPLETED


@pytest.mark.parametrize("first", ["complete", "rescue"])
def test_of_a_result_and_a_rescue_at_once_exactly_one_counts(bench, first):
    task_id = bench.add()
    worker = bench.register(lease_seconds=SHORT)
    (claimed,) = bench.claim(worker)
    bench.silence(worker)
    holding, other_done = threading.Event(), threading.Event()
    accepted: list[bool] = []

    def complete():
        accepted.append(bool(bench.engine.write([Succeeded(claimed.lease, '"good"')], "w1")))

    if first == "complete":
        # The completion has written but not committed; the rescuer passes the locked row over.
        with bench.database.transaction() as session:
            bench.engine._write(session, [Succeeded(claimed.lease, '"good"')], "w1")
            assert rescue(bench) == []
        assert bench.get(task_id).state is State.COMPLETED
        return

    def decide(task):
        holding.set()
        other_done.wait(1)
        return HandedBack(task.lease)

    rescuer = threading.Thread(target=rescue, args=(bench,), kwargs={"decide": decide})
    rescuer.start()
    assert holding.wait(10)
    completer = threading.Thread(target=complete)
    completer.start()
    other_done.set()
    rescuer.join(10)
    completer.join(10)
    assert accepted == [False]
    assert bench.get(task_id).state is State.READY


def test_a_rescue_judges_by_the_heartbeat_and_not_by_the_time_a_task_has_run(bench):
    bench.add()
    worker = bench.register(lease_seconds=SHORT)
    bench.claim(worker)
    bench.keep_alive(worker)
    bench.sql("UPDATE tasks SET started_at = now() - interval '1 day'")

    assert rescue(bench) == []


def test_a_rescue_takes_what_is_far_past_its_deadline_from_a_living_worker(bench):
    bench.add()
    worker = bench.register(lease_seconds=SHORT)
    bench.claim(worker)
    bench.keep_alive(worker)
    bench.sql("UPDATE tasks SET deadline_at = now() - interval '1 minute'")
    seen = []

    def decide(task):
        seen.append(task)
        return FailedForGood(task.lease, ERROR)

    assert len(rescue(bench, decide=decide)) == 1
    assert seen[0].overdue


def test_nobody_is_rescued_while_postgres_has_been_up_for_less_than_a_lease(bench):
    bench.add()
    worker = bench.register(lease_seconds=100_000)
    bench.claim(worker)
    bench.sql("UPDATE workers SET heartbeat_at = now() - interval '10 days'")

    assert rescue(bench) == []


def test_the_oldest_errors_go_when_there_are_too_many(bench):
    task_id = bench.add()
    bench.sql(
        "UPDATE tasks SET errors = (SELECT jsonb_agg(jsonb_build_object('attempt', n)) FROM generate_series(1, %s) n)",
        MAX_KEPT_ERRORS,
    )
    (claimed,) = bench.claim(bench.register())
    bench.engine.write([FailedForGood(claimed.lease, ERROR)], "w1")

    errors = json.loads(bench.get(task_id).errors)
    assert len(errors) == MAX_KEPT_ERRORS
    assert (errors[0], errors[-1]["message"]) == ({"attempt": 2}, "it broke")


def test_progress_is_written_while_the_lease_holds(bench):
    task_id = bench.add()
    (claimed,) = bench.claim(bench.register())

    bench.engine.write_progress([Progress(claimed.lease, 40, "половина почти")])

    task = bench.get(task_id)
    assert (task.progress_percent, task.progress_message) == (40, "половина почти")


# Cancelling, retrying, purging


def test_a_cancel_wins_over_a_result_that_comes_later(bench):
    task_id = bench.add()
    worker = bench.register()
    (claimed,) = bench.claim(worker)

    cancelled = bench.store.cancel(task_id, reach=Reach.all())

    assert cancelled is not None
    assert cancelled.state is State.CANCELLED
    assert bench.engine.write([Succeeded(claimed.lease, '"late"')], "w1") == set()
    assert bench.engine.write([WillRetry(claimed.lease, datetime.now(UTC), ERROR)], "w1") == set()
    assert bench.get(task_id).result is None
    assert bench.store.cancel(task_id, reach=Reach.all()) is None


def test_a_worker_can_ask_what_was_cancelled_until_it_says_that_the_handler_stopped(bench):
    task_id = bench.add()
    worker = bench.register()
    (claimed,) = bench.claim(worker)
    bench.store.cancel(task_id, reach=Reach.all())

    assert bench.engine.cancelled_under(worker) == {claimed.lease}
    assert bench.engine.held_by(worker) == set()
    bench.engine.write([StoppedAfterCancel(claimed.lease)], "w1")
    assert bench.engine.cancelled_under(worker) == set()


def test_a_cancelled_task_run_again_does_not_take_the_result_of_before(bench):
    task_id = bench.add()
    (before,) = bench.claim(bench.register())
    bench.store.cancel(task_id, reach=Reach.all())
    assert bench.store.retry(task_id, reach=Reach.all()) is not None
    (after,) = bench.claim(bench.register())

    assert (after.attempt, after.lease.number) == (1, 2)
    assert bench.engine.write([Succeeded(before.lease, '"late"')], "w1") == set()
    assert bench.engine.write([Succeeded(after.lease, '"good"')], "w1") == {after.lease}


def test_only_failed_and_cancelled_tasks_are_retried(bench):
    task_id = bench.add()
    assert bench.store.retry(task_id, reach=Reach.all()) is None
    (claimed,) = bench.claim(bench.register())
    assert bench.store.retry(task_id, reach=Reach.all()) is None
    bench.engine.write([Succeeded(claimed.lease, "1")], "w1")
    assert bench.store.retry(task_id, reach=Reach.all()) is None


def test_a_purge_removes_the_record_and_gives_a_live_task_as_cancelled(bench):
    task_id = bench.add()
    bench.claim(bench.register())

    purged = bench.store.purge(task_id, reach=Reach.all())

    assert purged is not None
    assert purged.state is State.CANCELLED
    assert bench.store.get(task_id, reach=Reach.all()) is None
    assert bench.store.purge(task_id, reach=Reach.all()) is None


def test_a_purge_gives_an_ended_task_as_it_was(bench):
    task_id = bench.add()
    (claimed,) = bench.claim(bench.register())
    bench.engine.write([Succeeded(claimed.lease, "7")], "w1")

    purged = bench.store.purge(task_id, reach=Reach.all())

    assert purged is not None
    assert (purged.state, purged.result) == (State.COMPLETED, "7")


def test_cancels_are_announced_to_whoever_listens(bench):
    task_id = bench.add()
    (claimed,) = bench.claim(bench.register())
    line = PostgresWakeUps(bench.database)
    try:
        bench.store.cancel(task_id, reach=Reach.all())
        assert line.wait(5) == [f"cancel:{task_id}:{claimed.lease.number}"]
        line.probe()
    finally:
        line.close()


def test_a_word_goes_out_with_the_commit_of_its_task(bench):
    line = PostgresWakeUps(bench.database)
    try:
        stored = bench.store.add(new_task(), "ready")
        assert line.wait(5) == ["ready"]
        assert [task.lease.task_id for task in bench.claim(bench.register())] == [stored.id]
    finally:
        line.close()


def test_a_process_tells_something_itself_only_when_nobody_has_lately(bench):
    announcer = Announcer(bench.store, on_death=lambda: pytest.fail("died"), interval_seconds=1e12)
    assert announcer.may_announce()
    assert not announcer.may_announce()

    waiting = Announcer(bench.store, on_death=lambda: pytest.fail("died"), interval_seconds=0)
    assert waiting.may_announce()
    assert waiting.may_announce()
    waiting.stop()
    waiting.announce("ready")
    assert not waiting.may_announce()


def test_many_announcements_of_one_thing_wake_the_thread_once(bench, monkeypatch):
    announcer = Announcer(bench.store, on_death=lambda: pytest.fail("died"), interval_seconds=60)
    assert announcer.may_announce()
    woken = []
    monkeypatch.setattr(announcer, "wake", lambda: woken.append(1))
    for _ in range(100):
        announcer.announce("ready")
    announcer.announce("scheduled")
    announcer.stop()

    assert len(woken) == 2


# Times and keys


def test_long_tasks_that_died_together_do_not_wait_for_one_another_for_long(bench):
    bench.register()
    worker = bench.register()
    for _ in range(3):
        bench.add()
    bench.sql("UPDATE tasks SET state = 'scheduled', suspects = 3")
    for done in range(3):
        assert bench.engine.promote(100).promoted == 1
        assert bench.engine.promote(100).promoted == 0
        assert len(bench.claim(worker)) == 1
        assert bench.engine.promote(100).promoted == 0, f"{done} have run for long"
        bench.sql("UPDATE tasks SET started_at = now() - interval '31 seconds' WHERE state = 'running'")


def test_a_task_for_later_is_promoted_when_its_time_has_come_and_not_before(bench):
    task_id = bench.add(execute_at=datetime.now(UTC) + timedelta(minutes=10))
    assert bench.get(task_id).state is State.SCHEDULED
    assert bench.claim(bench.register()) == []

    waiting = bench.engine.promote(100)
    assert waiting.promoted == 0
    assert 590 < waiting.next_in_seconds <= 600

    bench.sql("UPDATE tasks SET execute_at = now() - interval '1 s'")
    assert bench.engine.promote(100).promoted == 1
    assert bench.get(task_id).state is State.READY
    assert bench.engine.promote(100).next_in_seconds is None


def test_a_time_in_the_past_is_refused_by_the_clock_of_the_database(bench):
    with pytest.raises(PastExecuteAt):
        bench.add(execute_at=datetime.now(UTC) - timedelta(seconds=1))


def test_one_idempotency_key_makes_one_task_however_many_ask_at_once(bench):
    made = []
    keyed = {"idempotency_key": "k-1", "request_hash": b"\x01"}

    def add():
        made.append(bench.store.add(new_task(**keyed)))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(made) == 8
    (stored,) = [task for task in made if task is not None]
    assert bench.store.by_key("k-1", reach=Reach.all()) == (stored, b"\x01")


# Lists


def listed(bench, **wanted) -> TasksFound:
    return bench.store.search(everything(**wanted), waits="{}", reach=Reach.all())


def test_a_list_is_filtered_counted_and_paged_newest_first(bench):
    ids = [bench.add("a" if n % 2 else "b") for n in range(6)]
    bench.store.cancel(ids[5], reach=Reach.all())

    for page, places, following in (
        (listed(bench, task_type="a", limit=2), [5, 3], ids[3]),
        (listed(bench, task_type="a", limit=2, after=ids[3]), [1], None),
    ):
        assert ([one["id"] for one in json.loads(page.tasks)], page.next) == ([str(ids[n]) for n in places], following)
        assert (page.total, page.total_is_exact) == (3, True)
    page = listed(bench, states=(State.READY, State.SCHEDULED), offset=4)
    assert ([one["id"] for one in json.loads(page.tasks)], page.total) == ([str(ids[0])], 5)


@pytest.mark.parametrize("after", [False, True])
def test_a_list_looks_at_no_more_tasks_than_it_may_and_says_where_to_go_on(bench, monkeypatch, after):
    monkeypatch.setattr("service_tasks.persistence.task_store.MOST", 5)
    user = uuid4()
    ids = [bench.add("rare" if n == 0 else "common", user_id=user) for n in range(12)]
    if after:
        ids.append(bench.add("common", user_id=user))
    which = {"after": ids[-1]} if after else {}

    for wanted in ({}, {"user_id": user}):
        page = listed(bench, limit=2, **wanted, **which)
        assert (page.total, page.total_is_exact, page.next) == (5, False, ids[10])
        seen, wanted = [], {**which, **wanted, "task_type": "rare"}
        with pytest.raises(Invalid, match="offset"):
            listed(bench, **wanted, offset=1)
        while True:
            page = listed(bench, **wanted)
            assert (page.total, page.total_is_exact) == (0, False)
            seen.append(len(json.loads(page.tasks)))
            if page.next is None:
                break
            wanted["after"] = page.next
        assert seen == [0, 1, 0]
    # Live tasks are more than it may take at once; of failed and cancelled ones there are none.
    assert listed(bench, states=(State.READY,), limit=3, **which).next == ids[9]
    assert listed(bench, states=(State.FAILED,)) == NO_TASKS


def test_a_list_leaves_large_values_out(bench):
    small = bench.add(payload='"' + "x" * 100 + '"')
    large = bench.add(payload='"' + "x" * 20_000 + '"')

    shown = {one["id"]: (one["payload"] is None, one["omitted"]) for one in json.loads(listed(bench).tasks)}

    assert shown == {str(small): (False, []), str(large): (True, ["payload"])}
    assert bench.get(large).payload is not None


# Workers


def test_types_are_live_while_their_worker_lives(bench):
    first = bench.register(types=("a", "b"))
    bench.register(types=("b",))
    assert bench.store.live_types() == {"a": 1, "b": 2}

    bench.silence(first)
    assert bench.store.live_types() == {"b": 1}


def test_a_worker_that_still_holds_something_is_not_forgotten(bench):
    worker = bench.register()
    bench.add()
    (claimed,) = bench.claim(worker)
    bench.engine.forget_worker(worker)
    bench.silence(worker)
    assert bench.engine.forget_dead_workers() == 0

    bench.engine.write([Succeeded(claimed.lease, "1")], "w1")
    assert bench.engine.forget_dead_workers() == 1


def test_a_connection_that_was_made_before_the_tables_serves_as_any_other(bench):
    bench.sql("DEALLOCATE ALL")

    task_id = bench.add(user_id=uuid4())

    assert bench.get(task_id).task_type == "noop"


@pytest.mark.parametrize(("constraint", "words"), [("ck_tasks_state", State), ("ck_schedules_missed", Missed)])
def test_the_words_of_the_database_are_those_of_the_program(bench, constraint, words):
    (definition,) = bench.sql("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s", constraint)[0]

    assert set(definition.split("'")[1::2]) == set(words)


def test_the_columns_of_a_statement_are_the_fields_of_what_its_rows_become(bench):
    queries = load_queries()
    timing = [field.name for field in fields(Timing)]
    schedule = [field.name for field in fields(StoredSchedule) if field.name != "timing"]
    expected = [
        (f"SELECT {queries['columns']} FROM tasks t", StoredTask._fields),
        (queries["claim"], ClaimedRow._fields),
        (queries["claim_limited"], ClaimedRow._fields),
        (queries["watched"], ("id", "reach", *(field.name for field in fields(WatchedTask)[1:]))),
    ]
    parameters = {
        **{name: [] for name in ("types", "timeouts", "most", "most_per_user", "ids", "reach", "seen")},
        "limit": 1,
        "worker_id": str(uuid4()),
        "largest": 1,
    }
    with bench.database.transaction() as session:
        for statement, names in expected:
            assert tuple(session.connection().exec_driver_sql(statement, parameters).keys()) == names
        for name in ("columns", "light_columns"):
            statement = f"SELECT {load_queries('schedules.sql')[name]} FROM schedules s"
            assert {*session.connection().exec_driver_sql(statement, parameters).keys()} == {*timing, *schedule}


def test_the_plan_of_a_claim_made_while_the_table_was_empty_serves_a_full_one(bench, monkeypatch):
    executed = {}
    run = DedicatedConnections.run

    def remember(self, statement, parameters):
        executed[statement.partition("(")[0]] = (self, statement, parameters)
        return run(self, statement, parameters)

    monkeypatch.setattr(DedicatedConnections, "run", remember)
    assert bench.claim(bench.register()) == []
    bench.sql(
        """INSERT INTO tasks (id, state, task_type, payload, priority, max_attempts, execute_at)
           SELECT gen_random_uuid(), 'ready', 'noop', '{}', 50, 3, now() + n * interval '1 ms'
             FROM generate_series(1, 50000) n"""
    )
    line, statement, parameters = executed["EXECUTE claim"]
    ((plan,),) = run(line, f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)

    found = {scan["Node Type"]: scan["Actual Rows"] * scan["Actual Loops"] for scan in scans_of(plan[0]["Plan"])}
    # Ten tasks were looked at, not fifty thousand.
    assert found == {"Index Scan": 10, "Tid Scan": 10}
    assert len(bench.claim(bench.register())) == 10


def test_a_thread_whose_connection_breaks_with_a_word_of_the_server_unread_gets_another(bench, tasks_database):
    url = make_url(tasks_database.url)
    assert url.port
    with Wire(url.port) as wire:
        way = url.set(port=wire.port).render_as_string(hide_password=False)
        connections = DedicatedConnections(Database(way, application_name="connections", pool_size=1), "LISTEN words")
        assert connections.run("SELECT 1", {}) == [(1,)]
        wire.cut_after(lambda: bench.sql("NOTIFY words"))

        with pytest.raises(DatabaseUnavailable):
            connections.run("SELECT 1", {})
        assert connections.run("SELECT 1", {}) == [(1,)]


def test_one_row_is_read_in_one_round_trip(bench, monkeypatch):
    monkeypatch.setattr(bench.database, "transaction", lambda: pytest.fail("BEGIN and COMMIT are two more"))
    messages = MessageStore(bench.database)

    for read in (bench.store.get, ScheduleStore(bench.database).get):
        assert read(new_id(), reach=Reach.all()) is None
    for read in (messages.get, messages.forget):
        assert read(new_id()) is None


def test_the_keys_of_requests_answered_with_one_task_are_forgotten_while_it_lives(bench):
    task = bench.add(unique_key="daily")
    for key in ("old", "new"):
        assert bench.store.by_unique_key("daily", answers=(key, b"hash"), reach=Reach.all()) is not None
    bench.sql("UPDATE answered_keys SET created_at = now() - interval '31 days' WHERE idempotency_key = 'old'")
    relays = RelayStore(bench.database)

    assert "answered_keys" in relays.tables()
    assert relays.forget("answered_keys", REMEMBER_DAYS * 86_400) == 1
    assert bench.store.by_key("old", reach=Reach.all()) is None
    found = bench.store.by_key("new", reach=Reach.all())
    assert found is not None
    assert found[0].id == task
