"""Many tasks cancelled or run again by a filter, over HTTP and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from datetime import timedelta
from uuid import uuid4

import pytest

from service_tasks.app import create_app
from service_tasks.domain.task import AttemptError, FailedForGood, Succeeded
from service_tasks.persistence.bulk_store import BulkStore
from service_tasks.persistence.task_ends import TaskEnds
from service_tasks.schemas.bulk import CancelMany, RetryMany
from service_tasks.settings import TasksSettings
from service_tasks.task_types import TaskContext, task_type
from service_tasks.use_cases.bulk import BATCH, Bulk
from servicekit.events.inbox import Inbox
from servicekit.identity.reach import Reach
from servicekit.wire import deadline
from servicekit.wire.errors import DatabaseUnavailable
from tests.support.events import user_deleted
from tests.support.waiting import eventually

ERROR = AttemptError("Broken", "the pump")


@pytest.fixture
def post(tasks_database):
    client = create_app(TasksSettings(tasks_database_url=tasks_database.url, _env_file=None)).test_client()

    def send(path: str, body, *, status: int = 200):
        response = client.post(path, json=body)
        answer = response.get_json()
        assert response.status_code == status, answer
        return answer["data"] if status < 400 else answer["error"]

    return send


@pytest.fixture
def bulk(bench) -> Bulk:
    return Bulk(BulkStore(bench.database), announce=lambda word: None)


def failed(bench, task_type: str = "crane", **changes):
    """A task that has failed for good."""
    task_id = bench.add(task_type, **changes)
    (claimed,) = bench.claim(bench.register(types=(task_type,)), task_type)
    bench.engine.write([FailedForGood(claimed.lease, ERROR)], "a worker")
    return task_id


def counts(answer: dict) -> dict:
    return {name: value for name, value in answer.items() if name != "as_of"}


def states(bench) -> dict:
    return dict(bench.sql("SELECT id, state FROM tasks"))


# Which ones


@pytest.mark.parametrize("path", ["/tasks/cancel", "/tasks/retry"])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "all"),
        ({"all": False}, "all"),
        ({"limit": 5, "after": str(uuid4())}, "all"),
        ({"all": True, "task_type": "crane"}, "all"),
        ({"all": 1}, "all"),
        ({"status": "completed"}, "status"),
        ({"status": "sleeping"}, "status"),
        ({"ids": []}, "ids"),
        ({"ids": ["7"]}, "ids.0"),
        ({"all": True, "limit": 0}, "limit"),
        ({"all": True, "limit": 10_001}, "limit"),
        ({"created_from": "yesterday"}, "created_from"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_filter_must_say_which_tasks_are_meant(bench, post, path, body, field):
    bench.add("crane")

    error = post(path, body, status=400)

    assert [detail["field"] for detail in error["details"]] == [field]
    assert set(states(bench).values()) == {"ready"}


def test_an_end_that_a_live_task_does_not_have_cannot_choose_what_is_cancelled(post):
    error = post("/tasks/cancel", {"ended_before": "2026-01-31T15:00:00Z"}, status=400)

    assert error["details"][0]["field"] == "ended_before"


def test_each_field_narrows_what_is_cancelled(bench, post):
    user, hour = uuid4(), timedelta(hours=1)
    now = bench.sql("SELECT now()")[0][0]
    failed(bench, user_id=user)
    bench.add("crane", user_id=uuid4())
    bench.add("crane")
    bench.add("other", user_id=user)
    too_old = bench.add("crane", user_id=user)
    bench.sql("UPDATE tasks SET created_at = now() - interval '3 hours' WHERE id = %s", str(too_old))
    meant = [bench.add("crane", user_id=user), bench.add("crane", user_id=user, execute_at=now + hour)]

    answer = post(
        "/tasks/cancel",
        {
            "task_type": "crane",
            "user_id": str(user),
            "status": "New",
            "created_from": (now - hour).isoformat(),
            "created_before": (now + hour).isoformat(),
        },
    )

    assert counts(answer) == {"cancelled": 2, "changed": 0, "next": None}
    assert {task_id for task_id, state in states(bench).items() if state == "cancelled"} == set(meant)


def test_what_is_meant_is_counted_first_and_nothing_that_came_later_is_meant_with_it(bench, post):
    known = {failed(bench): "failed", failed(bench): "failed", bench.add("crane"): "ready"}
    to_retry = post("/tasks/retry", {"status": "failed", "dry_run": True, "limit": 1})
    to_cancel = post("/tasks/cancel", {"all": True, "dry_run": True})
    assert (to_retry["retried"], to_retry["next"] is not None) == (1, True)
    assert (to_cancel["cancelled"], to_cancel["changed"], to_cancel["next"]) == (1, 0, None)
    assert states(bench) == known
    later = {failed(bench, "other"): "failed", bench.add("other"): "ready"}

    once = {"status": "failed", "ended_before": to_retry["as_of"]}
    assert [post("/tasks/retry", once)["retried"] for _ in range(2)] == [2, 0]
    assert post("/tasks/cancel", {"created_before": to_cancel["as_of"], "status": "pending"})["cancelled"] == 3
    assert {task: states(bench)[task] for task in later} == later


def test_pending_and_processing_are_cancelled_unless_one_of_them_is_named(bench, post):
    running = bench.add("crane")
    bench.claim(bench.register(types=("crane",)), "crane")
    pending = bench.add("crane")

    assert post("/tasks/cancel", {"task_type": "crane", "status": "processing"})["cancelled"] == 1
    assert states(bench) == {running: "cancelled", pending: "ready"}
    assert post("/tasks/cancel", {"all": True})["cancelled"] == 1
    assert states(bench) == {running: "cancelled", pending: "cancelled"}


def test_failed_tasks_run_again_and_cancelled_ones_only_when_they_are_named(bench, post):
    broken = failed(bench)
    stopped = bench.add("crane")
    bench.store.cancel(stopped, reach=Reach.all())
    done = bench.add("crane")
    (claimed,) = bench.claim(bench.register(types=("crane",)), "crane")
    bench.engine.write([Succeeded(claimed.lease, "1")], "a worker")

    assert post("/tasks/retry", {"task_type": "crane"})["retried"] == 1
    assert states(bench) == {broken: "ready", stopped: "cancelled", done: "completed"}
    assert post("/tasks/retry", {"all": True})["retried"] == 0
    assert post("/tasks/retry", {"status": "cancelled"})["retried"] == 1
    assert states(bench)[stopped] == "ready"


def test_what_ended_in_some_time_runs_again(bench, post):
    early, late = failed(bench), failed(bench)
    bench.sql("UPDATE tasks SET completed_at = now() - interval '2 hours' WHERE id = %s", str(early))
    hour_ago = bench.sql("SELECT now() - interval '1 hour'")[0][0].isoformat()

    assert post("/tasks/retry", {"ended_before": hour_ago})["retried"] == 1
    assert states(bench) == {early: "ready", late: "failed"}
    assert post("/tasks/retry", {"ended_from": hour_ago})["retried"] == 1


def test_ids_are_those_alone_and_others_among_them_are_passed_over(bench, post):
    one, two, gone = bench.add(), bench.add(), failed(bench)

    answer = post("/tasks/cancel", {"ids": [str(one), str(gone), str(uuid4()), str(one)]})

    assert counts(answer) == {"cancelled": 1, "changed": 0, "next": None}
    assert states(bench) == {one: "cancelled", two: "ready", gone: "failed"}


# What becomes of them


def test_a_task_that_runs_again_has_all_attempts_and_keeps_the_errors_of_those_before(bench, post):
    task_id = failed(bench, max_attempts=1)
    before = bench.get(task_id)

    post("/tasks/retry", {"task_type": "crane", "status": "failed"})

    after = bench.get(task_id)
    assert (before.attempts, after.attempts, after.error, after.completed_at) == (1, 0, None, None)
    assert after.errors == before.errors != "[]"
    (claimed,) = bench.claim(bench.register(types=("crane",)), "crane")
    assert claimed.lease.number == 2


def test_a_result_that_comes_after_the_cancel_changes_nothing(bench, bulk):
    task_id = bench.add("crane")
    (claimed,) = bench.claim(bench.register(types=("crane",)), "crane")

    assert bulk.cancel(CancelMany(task_type="crane"), reach=Reach.all()).cancelled == 1

    assert bench.engine.write([Succeeded(claimed.lease, "1")], "a worker") == set()
    assert (bench.get(task_id).state, bench.get(task_id).result) == ("cancelled", None)


def test_handlers_of_cancelled_tasks_are_stopped(bench, bulk, start_worker):
    begun: list[str] = []
    stopped: list[str] = []

    @task_type("patient")
    async def patient(ctx: TaskContext, payload: object) -> None:
        begun.append(str(ctx.task_id))
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            stopped.append(str(ctx.task_id))
            raise

    worker = start_worker(patient)
    ids = [bench.add("patient") for _ in range(20)]
    eventually(lambda: len(begun) == 20)

    assert bulk.cancel(CancelMany(task_type="patient"), reach=Reach.all()).cancelled == 20

    eventually(lambda: len(stopped) == 20)
    assert sorted(stopped) == sorted(map(str, ids))
    eventually(lambda: not worker.worker.held)


def test_the_ends_that_others_asked_to_hear_of_are_told(bench):
    telling = Bulk(BulkStore(bench.database, TaskEnds(["cancelled"])), announce=lambda word: None)
    ids = {bench.add("crane") for _ in range(3)}

    telling.cancel(CancelMany(task_type="crane"), reach=Reach.all())

    rows = bench.sql("SELECT type, subject, data->>'status' FROM outbox")
    assert {row[1] for row in rows} == ids
    assert {row[0::2] for row in rows} == {("task.cancelled", "cancelled")}


def test_nothing_is_run_again_for_a_user_who_was_deleted(bench, post):
    gone = uuid4()
    orphan, other = failed(bench, user_id=gone), failed(bench, user_id=uuid4())
    Inbox(bench.database, {"user.deleted": bench.user_deleted}).take([user_deleted(gone)])

    answer = post("/tasks/retry", {"task_type": "crane"})

    assert counts(answer) == {"retried": 1, "changed": 0, "user_deleted": 1, "unique_key_taken": 0, "next": None}
    assert states(bench) == {orphan: "failed", other: "ready"}


def test_of_several_with_one_unique_key_one_runs_again_and_none_beside_a_live_one(bench, post):
    twins = [failed(bench, unique_key="pump") for _ in range(2)]
    beside = failed(bench, unique_key="crane")
    alive = bench.add("other", unique_key="crane")

    answer = post("/tasks/retry", {"task_type": "crane"})

    assert (answer["retried"], answer["unique_key_taken"]) == (1, 2)
    assert states(bench) == {twins[0]: "ready", twins[1]: "failed", beside: "failed", alive: "ready"}


def test_a_retry_wakes_the_workers(bench, tasks_database):
    failed(bench)
    words: list[str] = []

    Bulk(BulkStore(bench.database), announce=words.append).retry(RetryMany(all=True), reach=Reach.all())

    assert words == ["ready"]


# Many


def many_ready(bench, count: int) -> None:
    bench.sql(
        """INSERT INTO tasks (id, state, task_type, payload, priority, max_attempts, execute_at)
           SELECT gen_random_uuid(), 'ready', 'crane', '{}', 50, 3, now() FROM generate_series(1, %s)""",
        count,
    )


def test_more_than_the_limit_are_gone_on_with_from_where_it_ended(bench, post):
    ids = sorted(bench.add("crane") for _ in range(7))

    first = post("/tasks/cancel", {"task_type": "crane", "limit": 3})
    assert (first["cancelled"], first["next"]) == (3, str(ids[2]))
    second = post("/tasks/cancel", {"task_type": "crane", "limit": 3, "after": first["next"]})
    last = post("/tasks/cancel", {"task_type": "crane", "limit": 3, "after": second["next"]})

    assert (second["cancelled"], second["next"]) == (3, str(ids[5]))
    assert counts(last) == {"cancelled": 1, "changed": 0, "next": None}


def test_one_that_fails_again_at_once_is_not_run_again_by_the_request_that_goes_on(bench, bulk):
    ids = sorted(failed(bench) for _ in range(4))
    first = bulk.retry(RetryMany(all=True, limit=2), reach=Reach.all())
    bench.sql(
        "UPDATE tasks SET state = 'failed', completed_at = now() WHERE id = ANY (%s::uuid[])", list(map(str, ids[:2]))
    )

    second = bulk.retry(RetryMany(all=True, limit=2, after=first.next), reach=Reach.all())

    assert (second.retried, second.next) == (2, None)
    assert [states(bench)[task_id] for task_id in ids] == ["failed", "failed", "ready", "ready"]


def test_thousands_go_in_batches_each_of_them_whole(bench, bulk):
    many_ready(bench, 2300)

    assert bulk.cancel(CancelMany(task_type="crane", limit=5000), reach=Reach.all()).cancelled == 2300
    # A batch is a transaction, and a transaction has one moment.
    batches = bench.sql("SELECT count(*) FROM tasks GROUP BY completed_at ORDER BY 1")
    assert [row[0] for row in batches] == [2300 % BATCH, *[BATCH] * (2300 // BATCH)]


def test_when_the_time_of_a_request_is_nearly_gone_it_says_where_to_go_on(bench, bulk):
    many_ready(bench, 1200)

    with deadline.within(1.9):
        first = bulk.cancel(CancelMany(task_type="crane", limit=5000), reach=Reach.all())
    assert first.cancelled == BATCH
    assert (
        bulk.cancel(CancelMany(task_type="crane", limit=5000, after=first.next), reach=Reach.all()).cancelled
        == 1200 - BATCH
    )


def test_a_database_that_goes_away_in_the_middle_does_not_hide_what_was_done(bench):
    class Failing(BulkStore):
        left = 1

        def cancel(self, ids, *, reach):
            if not self.left:
                raise DatabaseUnavailable
            self.left -= 1
            return super().cancel(ids, reach=reach)

    many_ready(bench, 1200)
    bulk = Bulk(Failing(bench.database), announce=lambda word: None)

    answer = bulk.cancel(CancelMany(task_type="crane", limit=5000), reach=Reach.all())
    ordered = [row[0] for row in bench.sql("SELECT id FROM tasks ORDER BY id")]

    assert (answer.cancelled, answer.next) == (BATCH, ordered[BATCH - 1])
    with pytest.raises(DatabaseUnavailable):
        bulk.cancel(CancelMany(task_type="crane"), reach=Reach.all())


def test_cancels_retries_claims_and_results_at_once_never_wait_in_a_circle(bench):
    """Everybody works on the same two hundred tasks; a deadlock would be an error of one of them."""
    for _ in range(200):
        bench.add("crane", max_attempts=25)
    worker = bench.register(types=("crane",))
    bench.keep_alive(worker)
    errors: list[BaseException] = []
    done: dict[str, int] = {"cancelled": 0, "retried": 0, "written": 0}

    limit = time.monotonic() + 30
    times: Counter[str] = Counter()

    def repeat(work) -> None:
        try:
            # Until everybody had their turn often enough, and each of them changed something.
            while time.monotonic() < limit and not (
                all(done.values()) and len(times) == 3 and min(times.values()) >= 50
            ):
                work()
                times[work.__name__] += 1
        except BaseException as exc:  # whatever it was is what the test asks for
            errors.append(exc)

    def cancel() -> None:
        bulk = Bulk(BulkStore(bench.database), announce=lambda word: None)
        done["cancelled"] += bulk.cancel(CancelMany(all=True), reach=Reach.all()).cancelled

    def retry() -> None:
        bulk = Bulk(BulkStore(bench.database), announce=lambda word: None)
        for status in ("failed", "cancelled"):
            done["retried"] += bulk.retry(RetryMany(status=status), reach=Reach.all()).retried

    def run() -> None:
        claimed = bench.claim(worker, "crane", limit=50)
        outcomes = [
            Succeeded(task.lease, "1") if number % 10 == 0 else FailedForGood(task.lease, ERROR)
            for number, task in enumerate(claimed)
        ]
        done["written"] += len(bench.engine.write(outcomes, "a worker")) if outcomes else 0

    threads = [threading.Thread(target=repeat, args=[work]) for work in (cancel, cancel, retry, retry, run, run)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []
    assert all(done.values()), done
    assert set(states(bench).values()) <= {"ready", "completed", "failed", "cancelled", "running"}
    assert len(states(bench)) == 200
