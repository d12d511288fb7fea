"""What the task service tells the others, and what it does about a deleted user."""

from __future__ import annotations

import threading
from uuid import uuid4

import pytest

from service_tasks.domain.task import AttemptError, FailedForGood, Succeeded, WillRetry
from service_tasks.engine.registry import TaskType
from service_tasks.errors import TaskStateConflict, UserDeleted
from service_tasks.persistence.task_ends import CATALOGUE
from servicekit.events.inbox import Inbox
from servicekit.identity.reach import Reach
from tests.integration.service_tasks.conftest import Bench
from tests.support.events import user_deleted
from tests.support.waiting import eventually

ALL = ("completed", "failed", "cancelled")


@pytest.fixture
def telling(bench):
    return Bench(bench.database, ALL)


def told(bench) -> list[tuple]:
    return bench.sql("SELECT type, subject, data FROM outbox ORDER BY position")


def delete(bench, user_id, **changes):
    return Inbox(bench.database, {"user.deleted": bench.user_deleted}).take([user_deleted(user_id, **changes)])


def end_one_of_each(bench) -> dict[str, object]:
    ids = {name: bench.add() for name in ("completed", "failed", "retried")}
    worker = bench.register()
    leases = {task.lease.task_id: task.lease for task in bench.claim(worker)}
    error = AttemptError("Broken", "the pump")
    bench.engine.write(
        [
            Succeeded(leases[ids["completed"]], "{}"),
            FailedForGood(leases[ids["failed"]], error),
            WillRetry(leases[ids["retried"]], bench.sql("SELECT now() + interval '1 hour'")[0][0], error),
        ],
        "a worker",
    )
    ids["cancelled"] = bench.add()
    bench.store.cancel(ids["cancelled"], reach=Reach.all())
    return ids


def test_nothing_is_told_unless_somebody_asked(bench):
    end_one_of_each(bench)

    assert told(bench) == []


def test_every_end_that_was_asked_for_is_told_with_the_task(telling):
    ids = end_one_of_each(telling)

    events = {type_: (subject, data) for type_, subject, data in told(telling)}
    assert {type_: subject for type_, (subject, _) in events.items()} == {
        f"task.{end}": ids[end] for end in ALL
    }  # fmt: skip
    assert events["task.failed"][1]["error"] == "the pump"
    for type_, (_, data) in events.items():
        assert set(data) == set(CATALOGUE[type_].model_fields)
        assert f"task.{data['status']}" == type_


def test_a_purged_live_task_is_told_as_cancelled_and_an_ended_one_is_not_told_again(telling):
    live, ended = telling.add(), telling.add()
    telling.store.cancel(ended, reach=Reach.all())
    for task_id in (live, ended):
        telling.store.purge(task_id, reach=Reach.all())

    assert [(row[0], row[1]) for row in told(telling)] == [("task.cancelled", ended), ("task.cancelled", live)]


def test_a_result_that_comes_too_late_is_not_told(telling):
    task_id = telling.add()
    (task,) = telling.claim(telling.register())
    telling.store.cancel(task_id, reach=Reach.all())

    assert telling.engine.write([Succeeded(task.lease, "{}")], "a worker") == set()
    assert [row[0] for row in told(telling)] == ["task.cancelled"]


def test_the_live_tasks_of_a_deleted_user_are_cancelled_with_the_reason_and_the_others_left_alone(telling):
    anna = uuid4()
    done, ready, other, nobodys = (telling.add(user_id=user) for user in (anna, anna, uuid4(), None))
    telling.sql("UPDATE tasks SET state = 'completed', completed_at = now(), result = 'null' WHERE id = %s", str(done))
    future = telling.add(user_id=anna)
    telling.sql(
        "UPDATE tasks SET state = 'scheduled', execute_at = now() + interval '1 day' WHERE id = %s", str(future)
    )

    assert delete(telling, anna).processed == 1

    assert {telling.get(one).state for one in (ready, future)} == {"cancelled"}
    assert {telling.get(one).error for one in (ready, future)} == {"the user was deleted"}
    assert [telling.get(one).state for one in (done, other, nobodys)] == ["completed", "ready", "ready"]
    assert {row[1] for row in told(telling)} == {ready, future}


@pytest.mark.parametrize(
    ("type", "data", "reason"),
    [
        ("user.disabled", {}, "the user was disabled"),
        ("user.updated", {"roles": ["user", "auditor"]}, "the user's roles permit no tasks"),
        ("user.updated", {"roles": ["auditor"], "previous_roles": ["admin"]}, "the user's roles permit no tasks"),
        # Another name: what an administrator has made in their name goes on.
        ("user.updated", {"roles": ["auditor"], "previous_roles": ["auditor"]}, None),
        ("user.updated", {"roles": ["auditor", "admin"]}, None),
        ("user.updated", {"roles": ["foreman"]}, None),
    ],
)
def test_the_live_tasks_of_whoever_may_run_none_are_cancelled_and_later_ones_taken(telling, type, data, reason):
    anna = uuid4()
    done, ready, other = (telling.add(user_id=user) for user in (anna, anna, uuid4()))
    telling.sql("UPDATE tasks SET state = 'completed', completed_at = now(), result = 'null' WHERE id = %s", str(done))
    inbox = Inbox(telling.database, {"user.disabled": telling.user_disabled, "user.updated": telling.user_updated})

    assert inbox.take([user_deleted(anna, type=type, data={"id": str(anna), **data})]).processed == 1

    assert (telling.get(ready).state, telling.get(ready).error) == ("cancelled" if reason else "ready", reason)
    assert [telling.get(one).state for one in (done, other)] == ["completed", "ready"]
    # Once they may log in again.
    assert telling.get(telling.add(user_id=anna)).state == "ready"


def test_a_running_task_of_a_deleted_user_is_stopped(bench, start_worker):
    began, stopped = threading.Event(), threading.Event()

    def dig(ctx, payload):
        began.set()
        eventually(lambda: ctx.cancelled, what="the handler is told")
        stopped.set()

    start_worker(TaskType("dig", dig, payload=None, timeout_seconds=60))
    anna = uuid4()
    task_id = bench.add("dig", user_id=anna)
    assert began.wait(10)

    delete(bench, anna)

    assert stopped.wait(5)
    assert bench.get(task_id).state == "cancelled"


def test_the_same_event_again_changes_nothing(telling):
    anna = uuid4()
    task_id, event_id = telling.add(user_id=anna), uuid4()
    delete(telling, anna, id=event_id)
    before = telling.get(task_id)

    again = delete(telling, anna, id=event_id)

    assert (again.processed, again.duplicates) == (0, 1)
    assert telling.get(task_id) == before
    assert len(told(telling)) == 1


def test_nothing_is_made_or_run_again_for_a_deleted_user(bench):
    anna = uuid4()
    task_id = bench.add(user_id=anna)
    delete(bench, anna)

    with pytest.raises(UserDeleted):
        bench.add(user_id=anna)
    with pytest.raises(TaskStateConflict):
        bench.store.retry(task_id, reach=Reach.all())
    assert bench.get(task_id).state == "cancelled"


def test_creating_and_deleting_at_the_same_moment_leaves_no_live_task(bench):
    users = [uuid4() for _ in range(30)]
    start = threading.Barrier(3)

    def create() -> None:
        for user_id in users:
            start.wait(20)
            try:
                bench.add(user_id=user_id)
            except UserDeleted:
                continue

    threads = [threading.Thread(target=create) for _ in range(2)]
    for thread in threads:
        thread.start()
    for user_id in users:
        start.wait(20)
        delete(bench, user_id)
    for thread in threads:
        thread.join(30)

    assert bench.sql("SELECT count(*) FROM tasks WHERE state <> 'cancelled'") == [(0,)]
