"""A whole worker against a real PostgreSQL: every promise of the engine, seen from outside."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel

from service_tasks.domain.retry import RetryPolicy
from service_tasks.domain.task import State
from service_tasks.engine.ports import READY
from service_tasks.task_types import GiveUp, RetryAfter, TaskContext, TaskStopped, task_type
from service_tasks.task_types.io import io
from service_tasks.task_types.noop import noop
from servicekit.identity.reach import Reach
from tests.support.waiting import eventually

# The promise is a second; the machine that runs the tests may be busy with others.
CANCEL_LIMIT = 3.0
QUICK = RetryPolicy(base_seconds=0.05)


class Seen:
    """What handlers note for the test."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.stopped = threading.Event()
        self.release = threading.Event()
        self.runs: Counter[str] = Counter()


@pytest.fixture
def seen():
    seen = Seen()
    yield seen
    # Whatever still waits on a thread may go.
    seen.release.set()


def patient(seen, **options):
    """An async handler that waits until it is stopped."""

    @task_type("patient", **options)
    async def run(ctx: TaskContext, payload: object) -> str:
        seen.runs[str(ctx.task_id)] += 1
        seen.started.set()
        try:
            while not seen.release.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            seen.stopped.set()
            raise
        return "released"

    return run


def patient_function(seen, **options):
    """A plain function that waits until it is stopped."""

    @task_type("patient_function", **options)
    def run(ctx: TaskContext, payload: object) -> str:
        seen.runs[str(ctx.task_id)] += 1
        seen.started.set()
        try:
            while not seen.release.is_set():
                ctx.sleep(0.01)
        except TaskStopped:
            seen.stopped.set()
            raise
        return "released"

    return run


# Running


def test_async_and_plain_handlers_run_with_their_payload_and_their_results_are_kept(bench, start_worker):
    class Pair(BaseModel):
        a: int
        b: int

    @task_type("add", payload=Pair)
    async def add(ctx: TaskContext, payload: Pair) -> int:
        return payload.a + payload.b

    @task_type("greet")
    def greet(ctx: TaskContext, payload: dict[str, str]) -> dict[str, object]:
        return {"hello": payload["name"], "attempt": ctx.attempt}

    start_worker(add, greet)
    first = bench.add("add", payload='{"a": 2, "b": 3}')
    second = bench.add("greet", payload='{"name": "Белов"}')

    assert bench.wait_for(first, State.COMPLETED).result == "5"
    assert json.loads(bench.wait_for(second, State.COMPLETED).result) == {"hello": "Белов", "attempt": 1}


def test_progress_can_be_seen_while_the_task_runs(bench, start_worker, seen):
    @task_type("progressing")
    async def progressing(ctx: TaskContext, payload: object) -> None:
        ctx.progress(42, "почти половина")
        while not seen.release.is_set():
            await asyncio.sleep(0.01)

    start_worker(progressing)
    task_id = bench.add("progressing")

    eventually(lambda: bench.get(task_id).progress_percent == 42)
    assert bench.get(task_id).progress_message == "почти половина"
    seen.release.set()
    assert bench.wait_for(task_id, State.COMPLETED).progress_percent == 100


def test_a_failing_task_runs_again_until_it_works(bench, start_worker):
    start_worker(io, policy=QUICK)
    task_id = bench.add("io", payload='{"seconds": 0, "failures": 2}')

    task = bench.wait_for(task_id, State.COMPLETED)

    assert task.attempts == 3
    assert [(error["attempt"], error["type"]) for error in json.loads(task.errors)] == [
        (1, "RemoteFailed"),
        (2, "RemoteFailed"),
    ]
    assert task.error is None


def test_a_task_that_fails_every_time_ends_with_every_error(bench, start_worker):
    start_worker(io, policy=QUICK)
    task_id = bench.add("io", payload='{"seconds": 0, "failures": 9}', max_attempts=2)

    task = bench.wait_for(task_id, State.FAILED)

    assert (task.attempts, len(json.loads(task.errors))) == (2, 2)
    assert task.error == "attempt 2 was asked to fail"


def test_a_handler_may_give_up_for_good(bench, start_worker):
    @task_type("hopeless")
    def hopeless(ctx: TaskContext, payload: object) -> None:
        raise GiveUp("there is no such file")

    start_worker(hopeless)
    task = bench.wait_for(bench.add("hopeless"), State.FAILED)

    assert (task.attempts, task.error) == (1, "there is no such file")


def test_a_handler_may_say_when_to_try_again_and_the_attempt_counts(bench, start_worker):
    @task_type("busy")
    def busy(ctx: TaskContext, payload: object) -> str:
        if ctx.attempt == 1:
            raise RetryAfter(0.1, "the crane is busy")
        return "lifted"

    # The backoff alone would keep the task until long after the test.
    start_worker(busy, policy=RetryPolicy(base_seconds=3000))
    task = bench.wait_for(bench.add("busy"), State.COMPLETED)

    assert task.attempts == 2
    (error,) = json.loads(task.errors)
    assert (error["type"], error["message"]) == ("RetryAfter", "the crane is busy")
    last = bench.wait_for(bench.add("busy", max_attempts=1), State.FAILED)
    assert (last.attempts, last.error) == (1, "the crane is busy")


def test_a_type_has_a_backoff_of_its_own(bench, start_worker):
    @task_type("slow_to_return", retry=RetryPolicy(base_seconds=1000, cap_seconds=2000, jitter=0.0))
    async def slow_to_return(ctx: TaskContext, payload: object) -> None:
        raise ValueError("no")

    start_worker(slow_to_return, policy=QUICK)
    task = bench.wait_for(bench.add("slow_to_return"), State.SCHEDULED)

    wait = (task.execute_at - task.updated_at).total_seconds()
    assert 990 < wait < 1010


@pytest.mark.parametrize("plain", [True, False])
def test_a_failed_attempt_keeps_a_trace_that_begins_at_the_handler(bench, start_worker, plain):
    def fail() -> None:
        raise KeyError("crane")

    @task_type("failing")
    def failing(ctx: TaskContext, payload: object) -> None:
        fail()

    @task_type("failing")
    async def failing_async(ctx: TaskContext, payload: object) -> None:
        fail()

    start_worker(failing if plain else failing_async)
    task = bench.wait_for(bench.add("failing", max_attempts=1), State.FAILED)

    (error,) = json.loads(task.errors)
    lines = error["trace"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "test_worker.py" in lines[1]
    assert "in fail" in error["trace"]
    assert lines[-1] == "KeyError: 'crane'"


def test_a_result_that_its_type_did_not_promise_fails_the_attempt(bench, start_worker):
    class Area(BaseModel):
        square_metres: float

    @task_type("measure", result=Area)
    def measure(ctx: TaskContext, payload: object) -> object:
        return {"square_metres": 7} if ctx.attempt == 2 else {"square_metres": "seven"}

    start_worker(measure, policy=QUICK)
    task = bench.wait_for(bench.add("measure"), State.COMPLETED)

    (error,) = json.loads(task.errors)
    assert error["type"] == "BadResult"
    assert error["message"].startswith("the result is no Area: result.square_metres: ")
    assert json.loads(task.result or "") == {"square_metres": 7.0}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (object(), "not JSON"),
        (float("nan"), "not JSON"),
        ("a\0b", "cannot be stored"),
        ("\ud800", "not JSON"),
        ("x" * (1024 * 1024 + 1), "1048579 bytes"),
    ],
)
def test_a_result_that_cannot_be_stored_is_the_tasks_own_failure(bench, start_worker, result, message):
    @task_type("odd")
    async def odd(ctx: TaskContext, payload: object) -> object:
        return result

    start_worker(odd, noop)
    neighbour = bench.add("noop")
    task = bench.wait_for(bench.add("odd", max_attempts=1), State.FAILED)

    assert message in (task.error or "")
    bench.wait_for(neighbour, State.COMPLETED)


def test_error_texts_that_postgres_cannot_hold_are_made_fit(bench, start_worker):
    @task_type("rude")
    async def rude(ctx: TaskContext, payload: object) -> None:
        raise ValueError("nul \0 half \ud800 long " + "x" * 10_000)

    start_worker(rude)
    task = bench.wait_for(bench.add("rude", max_attempts=1), State.FAILED)

    assert task.error is not None
    assert task.error.startswith("nul \N{REPLACEMENT CHARACTER} half ? long xxx")
    assert len(task.error) == 2000


def test_a_payload_that_the_type_refuses_is_a_failed_attempt_and_leaves_no_thread_taken(bench, start_worker):
    class Strict(BaseModel):
        number: int

    @task_type("strict", payload=Strict)
    def strict(ctx: TaskContext, payload: Strict) -> int:
        return payload.number

    start_worker(strict, threads=1)
    bad = bench.add("strict", payload='{"number": "1"}', max_attempts=1)
    assert (bench.wait_for(bad, State.FAILED).error or "").startswith("payload.number:")

    assert bench.wait_for(bench.add("strict", payload='{"number": 1}'), State.COMPLETED).result == "1"


def test_a_payload_that_an_old_worker_refuses_is_left_for_one_that_knows_better(bench, start_worker):
    class Old(BaseModel):
        number: int

    class New(BaseModel):
        number: str

    def version(model: type[BaseModel]):
        @task_type("strict", payload=model, retry=RetryPolicy(base_seconds=0.1))
        def strict(ctx: TaskContext, payload) -> str:
            return payload.number

        return strict

    old = start_worker(version(Old))
    task_id = bench.add("strict", payload='{"number": "1"}', max_attempts=9)
    eventually(lambda: json.loads(bench.get(task_id).errors), what="an attempt that failed")
    old.stop()
    start_worker(version(New))

    task = bench.wait_for(task_id, State.COMPLETED)

    assert task.result == '"1"'
    assert json.loads(task.errors)[0]["type"] == "BadPayload"


@pytest.mark.parametrize("make", [patient, patient_function])
def test_a_task_that_takes_too_long_is_stopped(bench, start_worker, seen, make):
    kind = make(seen)
    start_worker(kind)
    task_id = bench.add(kind.name, max_attempts=1, timeout_seconds=0.2)

    task = bench.wait_for(task_id, State.FAILED)

    assert task.error == "ran longer than its 0.2 seconds"
    if kind.is_async:
        # The trace tells where it was.
        assert "asyncio.sleep(0.01)" in json.loads(task.errors)[0]["trace"]
    assert seen.stopped.wait(5)


def test_a_task_for_later_runs_then_and_not_before(bench, start_worker):
    start_worker(noop)
    when = datetime.now(UTC) + timedelta(seconds=1)
    task = bench.wait_for(bench.add(execute_at=when), State.COMPLETED)

    assert task.started_at is not None
    assert when <= task.started_at <= when + timedelta(seconds=3)


def test_a_worker_sleeping_between_polls_is_woken_by_a_word(bench, start_worker):
    worker = start_worker(noop, poll_seconds=60)
    eventually(lambda: bench.sql("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%%' AND state = 'idle'"))
    # One round trip, so that the first poll is certainly over.
    bench.store.announce(READY)
    bench.wait_for(_announced(bench), State.COMPLETED, timeout=5)
    bench.wait_for(_announced(bench), State.COMPLETED, timeout=5)
    assert worker.status is None


def _announced(bench):
    task_id = bench.add()
    bench.store.announce(READY)
    return task_id


def test_two_workers_never_run_one_task_twice(bench, start_worker, seen):
    lock = threading.Lock()

    @task_type("counted")
    async def counted(ctx: TaskContext, payload: object) -> None:
        with lock:
            seen.runs[str(ctx.task_id)] += 1
        await asyncio.sleep(0)

    start_worker(counted, concurrency=20)
    start_worker(counted, concurrency=20)
    start_worker(counted, concurrency=20)
    ids = [bench.add("counted") for _ in range(300)]

    eventually(lambda: bench.sql("SELECT count(*) FROM tasks WHERE state = 'completed'")[0][0] == 300, timeout=30)
    assert seen.runs == Counter(str(task_id) for task_id in ids)


def test_a_limit_that_a_type_declares_holds_over_two_workers(bench, start_worker, seen):
    lock = threading.Lock()
    running, most = 0, 0

    @task_type("crane", max_running=3)
    def crane(ctx, payload):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        seen.release.wait(30)
        with lock:
            running -= 1

    tasks = [bench.add("crane") for _ in range(40)]
    start_worker(crane, noop, threads=8)
    start_worker(crane, noop, threads=8)
    eventually(lambda: running == 3)
    # Whoever ran these has looked for the others before them.
    for _ in range(10):
        bench.wait_for(bench.add(priority=0), State.COMPLETED)
    seen.release.set()
    for task_id in tasks:
        bench.wait_for(task_id, State.COMPLETED, timeout=30)

    assert most == 3


def test_a_worker_takes_no_more_than_it_has_places_for(bench, start_worker, seen):
    kind, plain = patient(seen), patient_function(seen)
    worker = start_worker(kind, plain, concurrency=3, threads=1)
    for _ in range(5):
        bench.add("patient_function")
    bench.wait_for(bench.add("patient", priority=1), State.RUNNING)
    for _ in range(5):
        bench.add("patient")
    eventually(lambda: worker.worker.held == 3)

    running = bench.sql("SELECT task_type, count(*) FROM tasks WHERE state = 'running' GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in running] == [("patient", 2), ("patient_function", 1)]
    seen.release.set()
    eventually(lambda: bench.sql("SELECT count(*) FROM tasks WHERE state = 'completed'")[0][0] == 11)


# Cancelling


@pytest.mark.parametrize("make", [patient, patient_function])
@pytest.mark.parametrize("way", ["cancel", "purge"])
def test_a_cancel_reaches_the_handler_long_before_the_next_poll_or_beat(bench, start_worker, seen, make, way):
    kind = make(seen)
    # Before the worker, whose first look finds it: its second is a minute later.
    task_id = bench.add(kind.name)
    worker = start_worker(kind, poll_seconds=60, lease_seconds=600)
    assert seen.started.wait(10)

    getattr(bench.store, way)(task_id, reach=Reach.all())

    assert seen.stopped.wait(CANCEL_LIMIT)
    eventually(lambda: worker.worker.held == 0)
    if way == "cancel":
        assert bench.get(task_id).state is State.CANCELLED
        eventually(lambda: bench.sql("SELECT worker_id FROM tasks") == [(None,)])


def test_a_cancel_whose_announcement_was_lost_reaches_the_handler_by_asking(bench, start_worker, seen):
    task_id = bench.add("patient")
    start_worker(patient(seen), poll_seconds=60, lease_seconds=600)
    assert seen.started.wait(10)

    bench.sql(
        "UPDATE tasks SET state = 'cancelled', completed_at = now(), deadline_at = NULL WHERE id = %s", str(task_id)
    )

    assert seen.stopped.wait(CANCEL_LIMIT)


def test_a_task_cancelled_while_it_starts_never_completes(bench, start_worker, seen):
    ids = [bench.add("patient") for _ in range(30)]
    worker = start_worker(patient(seen))
    for task_id in ids:
        bench.store.cancel(task_id, reach=Reach.all())
    seen.release.set()

    eventually(lambda: worker.worker.held == 0)
    assert {bench.get(task_id).state for task_id in ids} == {State.CANCELLED}


# Dying and stopping


def test_a_lost_lease_stops_the_handler_and_its_result_is_not_taken(bench, start_worker, seen):
    start_worker(patient(seen))
    task_id = bench.add("patient")
    assert seen.started.wait(10)

    # As if a rescuer had taken it and another worker were running it now.
    bench.sql("UPDATE tasks SET lease_no = lease_no + 1, worker_id = gen_random_uuid()")

    assert seen.stopped.wait(5)
    assert bench.get(task_id).state is State.RUNNING


def test_a_claim_whose_answer_was_lost_is_found_and_run(bench, start_worker, seen):
    worker = start_worker(noop)
    eventually(lambda: bench.store.live_types())
    task_id = bench.add(execute_at=datetime.now(UTC) + timedelta(hours=1))
    # Committed by the database, but the worker never heard of it.
    bench.sql(
        """UPDATE tasks SET state = 'running', attempts = 1, lease_no = 1, worker_id = %s, started_at = now(),
                            deadline_at = now() + interval '1 hour'""",
        str(worker.worker.info.id),
    )

    task = bench.wait_for(task_id, State.COMPLETED)
    assert task.attempts == 1


def test_tasks_of_a_dead_worker_run_again_within_its_lease(bench, start_worker):
    dead = bench.register(lease_seconds=2.0)
    task_id = bench.add()
    assert len(bench.claim(dead)) == 1

    start_worker(noop, lease_seconds=2.0, policy=QUICK)

    task = bench.wait_for(task_id, State.COMPLETED, timeout=15)
    assert task.attempts == 2
    (error,) = json.loads(task.errors)
    assert error["type"] == "WorkerLost"


def test_a_task_of_a_dead_worker_waits_the_backoff_of_its_type(bench, start_worker):
    patient_noop = task_type("noop", retry=RetryPolicy(base_seconds=1000, jitter=0.0, cap_seconds=1000))(noop.function)
    dead = bench.register(lease_seconds=1.0)
    task_id = bench.add()
    assert len(bench.claim(dead)) == 1

    start_worker(patient_noop, lease_seconds=1.0, policy=QUICK)

    task = bench.wait_for(task_id, State.SCHEDULED, timeout=15)
    assert (task.execute_at - task.updated_at).total_seconds() == pytest.approx(1000, abs=1)


def test_a_task_that_kills_its_worker_each_time_fails_in_the_end(bench, start_worker):
    dead = bench.register(lease_seconds=1.0)
    task_id = bench.add(max_attempts=1)
    bench.claim(dead)

    start_worker(noop, lease_seconds=1.0)

    assert bench.wait_for(task_id, State.FAILED, timeout=15).attempts == 1


def test_nothing_that_a_handler_does_to_its_event_loop_ends_the_worker(bench, start_worker):
    @task_type("leaves")
    async def leaves(ctx: TaskContext, payload: object) -> str:
        async def leave() -> None:
            raise SystemExit(3)

        left = asyncio.create_task(leave())
        asyncio.get_running_loop().stop()
        await asyncio.wait([left])
        for task in asyncio.all_tasks():
            if task not in (left, asyncio.current_task()):
                task.cancel()
        return type(left.exception()).__name__

    @task_type("ends")
    async def ends(ctx: TaskContext, payload: object) -> None:
        raise SystemExit(3)

    worker = start_worker(leaves, ends)
    ended = bench.add("ends", max_attempts=1)

    assert bench.wait_for(bench.add("leaves"), State.COMPLETED).result == '"SystemExit"'
    assert bench.wait_for(ended, State.FAILED).attempts == 1
    assert worker.stop() == 0


def test_a_worker_that_is_told_to_stop_lets_handlers_finish(bench, start_worker, seen):
    worker = start_worker(patient(seen), grace_seconds=30)
    task_id = bench.add("patient")
    assert seen.started.wait(10)

    worker.worker.stop()
    eventually(lambda: "claimer" not in {one.name for one in threading.enumerate()}, what="nothing more is claimed")
    later = bench.add("patient")
    seen.release.set()

    assert worker.join() == 0
    assert bench.get(task_id).state is State.COMPLETED
    assert bench.get(later).state is State.READY
    assert bench.sql("SELECT * FROM workers") == []


@pytest.mark.parametrize("make", [patient, patient_function])
def test_what_does_not_finish_in_time_is_handed_back_with_its_attempt(bench, start_worker, seen, make):
    kind = make(seen)
    worker = start_worker(kind, grace_seconds=0.1)
    task_id = bench.add(kind.name)
    assert seen.started.wait(10)

    assert worker.stop() == 0

    task = bench.get(task_id)
    assert (task.state, task.attempts, json.loads(task.errors)) == (State.READY, 0, [])
    assert seen.stopped.is_set()


def test_a_handler_that_refuses_to_stop_does_not_keep_the_worker(bench, start_worker, seen):
    @task_type("stubborn")
    async def stubborn(ctx: TaskContext, payload: object) -> None:
        seen.started.set()
        while not seen.release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                seen.stopped.set()

    worker = start_worker(stubborn, grace_seconds=0.1)
    task_id = bench.add("stubborn")
    assert seen.started.wait(10)

    assert worker.stop() == 0
    assert bench.get(task_id).state is State.READY


def test_a_second_word_to_stop_does_not_wait_for_the_grace_time(bench, start_worker, seen):
    worker = start_worker(patient(seen), grace_seconds=600)
    task_id = bench.add("patient")
    assert seen.started.wait(10)

    worker.worker.stop()
    worker.worker.stop()

    assert worker.join() == 0
    assert bench.get(task_id).state is State.READY


def test_a_worker_most_of_whose_threads_hang_ends(bench, start_worker, seen, monkeypatch):
    monkeypatch.setattr("service_tasks.engine.worker._HUNG_SECONDS", 0.1)

    @task_type("hanging")
    def hanging(ctx: TaskContext, payload: object) -> None:
        seen.release.wait(60)

    worker = start_worker(hanging, threads=2)
    for _ in range(2):
        bench.add("hanging", timeout_seconds=0.1)

    assert worker.join() == 1


def test_a_handler_that_blocks_the_loop_does_not_make_the_worker_look_dead(bench, start_worker, seen):
    @task_type("blocking")
    async def blocking(ctx: TaskContext, payload: object) -> None:
        seen.started.set()
        seen.release.wait(60)

    start_worker(blocking, lease_seconds=1.0)
    task_id = bench.add("blocking")
    assert seen.started.wait(10)

    # Another worker's rescuer has every chance to take it.
    other = start_worker(noop, lease_seconds=1.0)
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > 2.5, what="two and a half leases")
    assert (bench.get(task_id).state, bench.get(task_id).attempts) == (State.RUNNING, 1)
    assert other.status is None
    seen.release.set()
    bench.wait_for(task_id, State.COMPLETED)
