"""The statements that are the algorithm, against a real PostgreSQL, in every order that hurts."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

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
from service_tasks.persistence.queries import load_queries
from service_tasks.use_cases import PastExecuteAt, Selection
from tests.integration.service_tasks.conftest import new_task

# Shorter than the server of these tests has been up: no one is rescued while that has not lasted a lease.
SHORT = 0.01
ERROR = AttemptError("Broken", "it broke")


def rescue(bench, *, lease_seconds=0.0, decide=lambda task: HandedBack(task.lease)):
    return bench.store.rescue(lease_seconds=lease_seconds, limit=500, rescuer="rescuer", decide=decide)


def everything(**changes) -> Selection:
    fields = {"states": None, "task_type": None, "user_id": None, "after": None, "limit": 50, "offset": 0}
    return Selection(**{**fields, **changes})


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


def test_many_claimers_never_get_one_task_twice(bench):
    for _ in range(300):
        bench.add()
    taken: list[Lease] = []
    workers = [bench.register() for _ in range(8)]

    def claim_all(worker):
        # A claim may find everything locked by others and come back empty while tasks are left.
        while bench.sql("SELECT 1 FROM tasks WHERE state = 'ready' LIMIT 1"):
            taken.extend(task.lease for task in bench.claim(worker, limit=7))

    threads = [threading.Thread(target=claim_all, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(taken) == 300
    assert len({lease.task_id for lease in taken}) == 300


def test_the_claim_walks_its_index_and_sorts_no_table(bench):
    bench.sql(
        """INSERT INTO tasks (id, state, task_type, payload, priority, max_attempts, execute_at)
           SELECT gen_random_uuid(), CASE WHEN n % 2 = 0 THEN 'ready' ELSE 'scheduled' END, 'noop', '{}', n % 100, 3,
                  now() + n * interval '1 s' FROM generate_series(1, 5000) n""".replace("%", "%%")
    )
    bench.sql("ANALYZE tasks")

    statement = load_queries()["claim"]
    parameters = {"types": ["noop"], "timeouts": [60.0], "limit": 10, "worker_id": str(bench.register())}
    with bench.database.transaction() as session:
        rows = session.connection().exec_driver_sql("EXPLAIN " + statement, parameters).all()
        session.rollback()
    plan = "\n".join(row[0] for row in rows)

    assert "ix_tasks_ready" in plan
    assert "Seq Scan on tasks r" not in plan


def test_the_promoter_walks_its_index(bench):
    bench.sql(
        """INSERT INTO tasks (id, state, task_type, payload, priority, max_attempts, execute_at)
           SELECT gen_random_uuid(), 'scheduled', 'noop', '{}', 50, 3, now() + n * interval '1 s'
             FROM generate_series(1, 5000) n"""
    )
    bench.sql("ANALYZE tasks")
    with bench.database.transaction() as session:
        connection = session.connection()
        promote = connection.exec_driver_sql("EXPLAIN " + load_queries()["promote"], {"limit": 100}).all()
        upcoming = connection.exec_driver_sql("EXPLAIN " + load_queries()["next_scheduled"]).all()

    assert "ix_tasks_scheduled" in "\n".join(row[0] for row in promote)
    assert "ix_tasks_scheduled" in "\n".join(row[0] for row in upcoming)


# Outcomes and their fence


def test_outcomes_of_every_kind_are_written_in_one_batch(bench):
    done, again, lost, back = (bench.add() for _ in range(4))
    leases = {task.lease.task_id: task.lease for task in bench.claim(bench.register())}
    when = datetime.now(UTC) + timedelta(hours=1)

    accepted = bench.store.write(
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
        "worker": "w1",
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

    assert bench.store.write([Succeeded(first.lease, '"late"')], "w1") == set()
    assert bench.store.write([FailedForGood(first.lease, ERROR)], "w1") == set()
    assert bench.store.write([HandedBack(first.lease)], "w1") == set()
    bench.store.write_progress([Progress(first.lease, 99, "late")])
    assert (bench.get(task_id).state, bench.get(task_id).progress_percent) == (State.RUNNING, 0)

    assert bench.store.write([Succeeded(second.lease, '"good"')], "w2") == {second.lease}
    assert bench.get(task_id).result == '"good"'


def test_a_rescue_that_comes_after_the_result_changes_nothing(bench):
    task_id = bench.add()
    worker = bench.register(lease_seconds=SHORT)
    (claimed,) = bench.claim(worker)
    bench.silence(worker)
    bench.store.write([Succeeded(claimed.lease, '"good"')], "w1")

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
        accepted.append(bool(bench.store.write([Succeeded(claimed.lease, '"good"')], "w1")))

    if first == "complete":
        # The completion has written but not committed; the rescuer passes the locked row over.
        with bench.database.transaction() as session:
            bench.store._write(session, [Succeeded(claimed.lease, '"good"')], "w1")
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
    bench.store.write([FailedForGood(claimed.lease, ERROR)], "w1")

    errors = json.loads(bench.get(task_id).errors)
    assert len(errors) == MAX_KEPT_ERRORS
    assert (errors[0], errors[-1]["message"]) == ({"attempt": 2}, "it broke")


def test_progress_is_written_while_the_lease_holds(bench):
    task_id = bench.add()
    (claimed,) = bench.claim(bench.register())

    bench.store.write_progress([Progress(claimed.lease, 40, "половина почти")])

    task = bench.get(task_id)
    assert (task.progress_percent, task.progress_message) == (40, "половина почти")


# Cancelling, retrying, purging


def test_a_cancel_wins_over_a_result_that_comes_later(bench):
    task_id = bench.add()
    worker = bench.register()
    (claimed,) = bench.claim(worker)

    cancelled = bench.store.cancel(task_id)

    assert cancelled is not None
    assert cancelled.state is State.CANCELLED
    assert bench.store.write([Succeeded(claimed.lease, '"late"')], "w1") == set()
    assert bench.store.write([WillRetry(claimed.lease, datetime.now(UTC), ERROR)], "w1") == set()
    assert bench.get(task_id).result is None
    assert bench.store.cancel(task_id) is None


def test_a_worker_can_ask_what_was_cancelled_until_it_says_that_the_handler_stopped(bench):
    task_id = bench.add()
    worker = bench.register()
    (claimed,) = bench.claim(worker)
    bench.store.cancel(task_id)

    assert bench.store.cancelled_under(worker) == {claimed.lease}
    assert bench.store.held_by(worker) == set()
    bench.store.write([StoppedAfterCancel(claimed.lease)], "w1")
    assert bench.store.cancelled_under(worker) == set()


def test_a_cancelled_task_run_again_does_not_take_the_result_of_before(bench):
    task_id = bench.add()
    (before,) = bench.claim(bench.register())
    bench.store.cancel(task_id)
    assert bench.store.retry(task_id) is not None
    (after,) = bench.claim(bench.register())

    assert (after.attempt, after.lease.number) == (1, 2)
    assert bench.store.write([Succeeded(before.lease, '"late"')], "w1") == set()
    assert bench.store.write([Succeeded(after.lease, '"good"')], "w1") == {after.lease}


def test_only_failed_and_cancelled_tasks_are_retried(bench):
    task_id = bench.add()
    assert bench.store.retry(task_id) is None
    (claimed,) = bench.claim(bench.register())
    assert bench.store.retry(task_id) is None
    bench.store.write([Succeeded(claimed.lease, "1")], "w1")
    assert bench.store.retry(task_id) is None


def test_a_purge_removes_the_record_and_gives_a_live_task_as_cancelled(bench):
    task_id = bench.add()
    bench.claim(bench.register())

    purged = bench.store.purge(task_id)

    assert purged is not None
    assert purged.state is State.CANCELLED
    assert bench.store.get(task_id) is None
    assert bench.store.purge(task_id) is None


def test_a_purge_gives_an_ended_task_as_it_was(bench):
    task_id = bench.add()
    (claimed,) = bench.claim(bench.register())
    bench.store.write([Succeeded(claimed.lease, "7")], "w1")

    purged = bench.store.purge(task_id)

    assert purged is not None
    assert (purged.state, purged.result) == (State.COMPLETED, "7")


def test_cancels_are_announced_to_whoever_listens(bench):
    task_id = bench.add()
    (claimed,) = bench.claim(bench.register())
    line = bench.store.open_wake_ups()
    try:
        bench.store.cancel(task_id)
        assert line.wait(5) == [f"cancel:{task_id}:{claimed.lease.number}"]
        line.probe()
    finally:
        line.close()


# Times and keys


def test_a_task_for_later_is_promoted_when_its_time_has_come_and_not_before(bench):
    task_id = bench.add(execute_at=datetime.now(UTC) + timedelta(minutes=10))
    assert bench.get(task_id).state is State.SCHEDULED
    assert bench.claim(bench.register()) == []

    waiting = bench.store.promote(100)
    assert waiting.promoted == 0
    assert 590 < waiting.next_in_seconds <= 600

    bench.sql("UPDATE tasks SET execute_at = now() - interval '1 s'")
    assert bench.store.promote(100).promoted == 1
    assert bench.get(task_id).state is State.READY
    assert bench.store.promote(100).next_in_seconds is None


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
    assert bench.store.by_key("k-1") == (stored, b"\x01")


# Lists


def test_a_list_is_filtered_counted_and_paged_newest_first(bench):
    ids = [bench.add("a" if n % 2 else "b") for n in range(6)]
    bench.store.cancel(ids[5])

    page, total = bench.store.search(everything(task_type="a", limit=2))
    assert ([task.id for task in page], total) == ([ids[5], ids[3]], 3)
    page, total = bench.store.search(everything(task_type="a", limit=2, after=ids[3]))
    assert ([task.id for task in page], total) == ([ids[1]], 3)
    page, total = bench.store.search(everything(states=(State.READY, State.SCHEDULED), offset=4))
    assert ([task.id for task in page], total) == ([ids[0]], 5)


def test_a_list_leaves_large_values_out(bench):
    small = bench.add(payload='"' + "x" * 100 + '"')
    large = bench.add(payload='"' + "x" * 20_000 + '"')

    payloads = {task.id: task.payload for task in bench.store.search(everything())[0]}

    assert payloads[small] is not None
    assert payloads[large] is None
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
    bench.store.forget_worker(worker)
    bench.silence(worker)
    assert bench.store.forget_dead_workers() == 0

    bench.store.write([Succeeded(claimed.lease, "1")], "w1")
    assert bench.store.forget_dead_workers() == 1


def test_the_states_of_the_database_are_those_of_the_program(bench):
    (definition,) = bench.sql("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'ck_tasks_state'")[0]

    in_the_database = set(definition.split("'")[1::2])
    assert in_the_database == {state.value for state in State}
