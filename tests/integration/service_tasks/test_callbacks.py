"""The end of a task with a callback_url is told there: written with the end, delivered by a worker, signed."""

from __future__ import annotations

import json
import signal
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from service_tasks.app import create_app
from service_tasks.domain.task import AttemptError, FailedForGood, State, Succeeded, WillRetry
from service_tasks.errors import UserDeleted
from service_tasks.persistence.bulk_store import BulkStore
from service_tasks.persistence.task_ends import EndedTask
from service_tasks.persistence.wake_ups import PostgresWakeUps
from service_tasks.schemas.bulk import CancelMany, RetryMany
from service_tasks.settings import TasksSettings
from service_tasks.task_types import GiveUp, RetryAfter
from service_tasks.task_types.callback import CallbackSettings, callback
from service_tasks.task_types.http_exchange import RequestFailed
from service_tasks.task_types.noop import noop
from service_tasks.task_types.testing import run_once
from service_tasks.use_cases.bulk import Bulk
from servicekit.events.inbox import Inbox
from servicekit.identity.reach import Reach
from servicekit.wire.errors import DatabaseUnavailable
from tests.integration.service_tasks.test_http import Client
from tests.support.events import user_deleted
from tests.support.markdown import CHECKOUT, Document
from tests.support.upstream import ScriptedUpstream, answer

URL = "https://site.example.com/ended"
SECRET = "a secret of the tests"
ERROR = AttemptError("Broken", "the pump")
PAGE = Document(CHECKOUT / "docs" / "callbacks.md")


def is_genuine(*arguments, **more) -> bool:
    """As the page for receivers says."""
    (code,) = [block.text for block in PAGE.blocks if block.language == "python"]
    names: dict = {}
    exec(code, names)
    return names["is_genuine"](*arguments, **more)


def callbacks(bench) -> list[tuple[UUID, dict]]:
    return [
        (row[0], row[1]) for row in bench.sql("SELECT id, payload FROM tasks WHERE task_type = 'callback' ORDER BY id")
    ]


def claimed(bench, task_id: UUID, **options):
    # A lease shorter than the server's own life: within it nobody is rescued.
    worker = bench.register(lease_seconds=0.1)
    bench.keep_alive(worker)
    (task,) = bench.claim(worker, limit=1, **options)
    assert task.lease.task_id == task_id
    return worker, task.lease


# The end and its callback are one transaction


def complete(bench, task_id):
    _, lease = claimed(bench, task_id)
    assert bench.engine.write([Succeeded(lease, '{"metres": 7}')], "w") == {lease}


def complete_among_others(bench, task_id):
    _, lease = claimed(bench, task_id)
    bench.add()
    _, other = claimed(bench, bench.add(priority=100))
    assert bench.engine.write([Succeeded(lease, '{"metres": 7}'), FailedForGood(other, ERROR)], "w") == {lease, other}


def fail(bench, task_id):
    _, lease = claimed(bench, task_id)
    bench.engine.write([FailedForGood(lease, ERROR)], "w")


def lose(bench, task_id):
    worker, lease = claimed(bench, task_id)
    bench.silence(worker)
    outcomes = bench.engine.rescue(
        lease_seconds=0.1, limit=10, rescuer="w", decide=lambda task: FailedForGood(task.lease, ERROR)
    )
    assert [outcome.lease for outcome in outcomes] == [lease]


def cancel(bench, task_id):
    task = bench.store.cancel(task_id, reach=Reach.all())
    assert task is not None
    assert task.callback_task_id is not None


def cancel_running(bench, task_id):
    claimed(bench, task_id)
    cancel(bench, task_id)


def purge(bench, task_id):
    assert bench.store.purge(task_id, reach=Reach.all()) is not None


def cancel_by_filter(bench, task_id):
    bulk = Bulk(BulkStore(bench.database), announce=lambda word: None)
    # The second time there is the callback, which nobody asked for.
    assert [bulk.cancel(CancelMany(status="pending"), reach=Reach.all()).cancelled for _ in range(2)] == [1, 0]
    assert bulk.cancel(CancelMany(task_type="other"), reach=Reach.all()).cancelled == 0


def delete_user(bench, task_id):
    user_id = bench.get(task_id).user_id
    inbox = Inbox(bench.database, {"user.deleted": bench.user_deleted})
    inbox.take([user_deleted(user_id)])
    # The event comes again, and the user is gone: neither makes or stops a callback.
    inbox.take([user_deleted(user_id)])
    with pytest.raises(UserDeleted):
        bench.add(user_id=user_id, callback_url=URL)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (complete, "completed"),
        (complete_among_others, "completed"),
        (fail, "failed"),
        (lose, "failed"),
        (cancel, "cancelled"),
        (cancel_running, "cancelled"),
        (cancel_by_filter, "cancelled"),
        (purge, "cancelled"),
        (delete_user, "cancelled"),
    ],
)
def test_each_end_of_a_task_makes_one_callback(bench, end, status):
    task_id = bench.add(callback_url=URL, user_id=uuid4(), title="Pour", priority=99)

    end(bench, task_id)

    ((callback_id, told),) = callbacks(bench)
    event, ended = told["event"], EndedTask.model_validate(told["event"]["data"])
    assert told["url"] == URL
    assert (event["id"], event["type"], event["subject"]) == (str(callback_id), f"task.{status}", str(task_id))
    assert (event["specversion"], event["source"]) == ("1.0", "/siteworks/tasks")
    assert (ended.id, ended.status, ended.title, ended.task_type) == (task_id, status, "Pour", "noop")
    assert ended.result == ({"metres": 7} if status == "completed" else None)
    assert ended.error == {"failed": "the pump", "cancelled": None, "completed": None}[status] or end is delete_user
    made = bench.get(callback_id)
    assert (made.state, made.user_id, made.callback_url, made.max_attempts) == (State.READY, None, None, 20)
    if end is not purge:
        assert bench.get(task_id).callback_task_id == callback_id


def test_a_task_without_a_callback_and_an_attempt_that_is_not_the_last_make_none(bench):
    plain, again = bench.add(priority=99), bench.add(callback_url=URL)
    worker = bench.register()
    leases = {task.lease.task_id: task.lease for task in bench.claim(worker)}

    soon = bench.sql("SELECT now() + interval '1 hour'")[0][0]
    bench.engine.write([Succeeded(leases[plain], "1"), WillRetry(leases[again], soon, ERROR)], "w")
    bench.store.cancel(bench.add(), reach=Reach.all())

    assert callbacks(bench) == []
    assert bench.get(again).callback_task_id is None


def test_one_batch_ends_tasks_with_and_without_callbacks(bench):
    urls = [None, f"{URL}/1", None, f"{URL}/3"]
    ids = [bench.add(callback_url=url) for url in urls]
    leases = [task.lease for task in bench.claim(bench.register())]

    assert bench.engine.write([Succeeded(lease, "1") for lease in leases], "w") == set(leases)

    assert {bench.get(task_id).state for task_id in ids} == {State.COMPLETED}
    assert sorted(told["url"] for _, told in callbacks(bench)) == [f"{URL}/1", f"{URL}/3"]


def test_what_is_too_late_makes_no_second_callback(bench):
    task_id = bench.add(callback_url=URL)
    _, lease = claimed(bench, task_id)
    bench.store.cancel(task_id, reach=Reach.all())

    assert bench.engine.write([Succeeded(lease, "1")], "w") == set()
    assert bench.engine.write([FailedForGood(lease, ERROR)], "w") == set()
    assert bench.store.cancel(task_id, reach=Reach.all()) is None

    assert [told["event"]["type"] for _, told in callbacks(bench)] == ["task.cancelled"]


def test_an_end_whose_callback_cannot_be_written_has_not_happened(bench, monkeypatch):
    task_id = bench.add(callback_url=URL)
    _, lease = claimed(bench, task_id)

    def broken(session, tasks, reach):
        raise DatabaseUnavailable

    with monkeypatch.context() as patched:
        patched.setattr("service_tasks.persistence.task_ends.insert_many", broken)
        with pytest.raises(DatabaseUnavailable):
            bench.engine.write([Succeeded(lease, "1")], "w")
        with pytest.raises(DatabaseUnavailable):
            bench.store.cancel(task_id, reach=Reach.all())
    assert bench.get(task_id).state is State.RUNNING

    assert bench.engine.write([Succeeded(lease, "1")], "w") == {lease}
    assert len(callbacks(bench)) == 1


def test_a_large_result_is_named_and_not_sent(bench):
    bench.add(callback_url=URL)
    _, lease = claimed(bench, bench.sql("SELECT id FROM tasks")[0][0])

    bench.engine.write([Succeeded(lease, json.dumps("x" * 17_000))], "w")

    ((_, told),) = callbacks(bench)
    data = told["event"]["data"]
    assert (data["result"], data["omitted"]) == (None, ["result"])
    assert data["result_url"] == f"/tasks/{data['id']}/result"


def test_a_task_that_is_run_again_and_ends_again_is_told_again(bench):
    task_id = bench.add(callback_url=URL)
    bench.store.cancel(task_id, reach=Reach.all())

    assert bench.store.retry(task_id, reach=Reach.all()).callback_task_id is None
    bench.store.cancel(task_id, reach=Reach.all())

    (first, _), (second, _) = callbacks(bench)
    assert first != second
    assert bench.get(task_id).callback_task_id == second


def test_callbacks_are_cancelled_by_filter_when_somebody_names_them(bench):
    bulk = Bulk(BulkStore(bench.database), announce=lambda word: None)
    task_id = bench.add(callback_url=URL)
    bench.store.cancel(task_id, reach=Reach.all())

    assert bulk.cancel(CancelMany(task_type="callback"), reach=Reach.all()).cancelled == 1
    assert bulk.retry(RetryMany(status="cancelled"), reach=Reach.all()).retried == 2
    assert bench.get(task_id).callback_task_id is None


def test_the_workers_are_told_with_the_end(bench):
    wake_ups = PostgresWakeUps(bench.database)
    try:
        bench.store.cancel(bench.add(callback_url=URL), reach=Reach.all())
        assert wake_ups.wait(5) == ["ready"]
    finally:
        wake_ups.close()


# Over HTTP and RabbitMQ


def client(tasks_database, hosts: str) -> Client:
    settings = TasksSettings(tasks_database_url=tasks_database.url, callback_hosts=hosts, _env_file=None)
    return Client(create_app(settings).test_client())


@pytest.fixture
def ask(tasks_database) -> Client:
    return client(tasks_database, "site.example.com, *.example.org:8443")


def test_the_address_is_kept_and_shown(ask):
    task = ask("POST", "/tasks", {"callback_url": URL}, status=201)
    assert (task["callback_url"], task["callback_task_id"]) == (URL, None)

    cancelled = ask("DELETE", f"/tasks/{task['id']}", status=200)

    told = ask("GET", f"/tasks/{cancelled['callback_task_id']}", status=200)
    assert (told["task_type"], told["status"], told["payload"]["url"]) == ("callback", "pending", URL)
    assert told["waiting_for"] == "no worker runs this type; it needs CALLBACK_HOSTS to be set for the workers"
    other = ask("POST", "/tasks", {"callback_url": "https://a.example.org:8443/x?y=1"}, status=201)
    assert other["callback_url"] == "https://a.example.org:8443/x?y=1"


REFUSED = {
    "https://other.example.com/": "CALLBACK_HOSTS does not name other.example.com:443",
    "https://site.example.com:8443/": "CALLBACK_HOSTS does not name site.example.com:8443",
    "http://127.0.0.1/": "CALLBACK_HOSTS does not name 127.0.0.1:80",
    "https://example.org:8443/": "CALLBACK_HOSTS does not name example.org:8443",
    "ftp://site.example.com/": "must be a URL that begins with http:// or https:// and a host",
    "https://me:secret@site.example.com/": "must hold no name and password",
    "https://site.example.com/б": "must be a URL in ASCII",
    "https://site.example.com/ x": "without spaces",
    f"https://site.example.com/{'x' * 1976}": "must have at most 2000 characters",
    "": "must be a URL",
    7: "must be a string",
}


def test_an_address_that_is_none_or_is_not_listed_is_refused_by_its_field(ask):
    for url, said in REFUSED.items():
        for path, body, field in (
            ("/tasks", {"callback_url": url}, "callback_url"),
            ("/tasks/batch", {"tasks": [{}, {"callback_url": url}]}, "tasks.1.callback_url"),
            ("/schedules", {"name": "daily", "cron": "@daily", "callback_url": url}, "callback_url"),
        ):
            (detail,) = ask("POST", path, body, status=400)["details"]
            assert detail["field"] == field
            assert said in detail["message"]


def test_nobody_is_called_back_where_no_host_is_listed(tasks_database):
    (detail,) = client(tasks_database, "")("POST", "/tasks", {"callback_url": URL}, status=400)["details"]

    assert detail == {
        "field": "callback_url",
        "message": "nobody is called back here: CALLBACK_HOSTS names no host",
    }


def test_nobody_but_the_service_makes_callbacks(ask):
    for path, body in (
        ("/tasks", {"task_type": "callback", "payload": {"url": URL, "event": {}}}),
        ("/schedules", {"name": "forged", "cron": "@daily", "task_type": "callback"}),
    ):
        (detail,) = ask("POST", path, body, status=400)["details"]
        assert detail["field"] == "task_type"


def test_the_tasks_of_a_schedule_and_of_a_batch_have_its_address(ask):
    schedule = ask("POST", "/schedules", {"name": "daily", "cron": "@daily", "callback_url": URL}, status=201)
    assert schedule["callback_url"] == URL
    assert ask("POST", f"/schedules/{schedule['id']}/run", status=201)["callback_url"] == URL
    changed = ask("PUT", f"/schedules/{schedule['id']}", {"callback_url": None}, status=200)
    assert changed["callback_url"] is None
    assert ask("POST", f"/schedules/{schedule['id']}/run", status=201)["callback_url"] is None

    ids = ask("POST", "/tasks/batch", {"tasks": [{}, {"callback_url": URL}, {}]}, status=201)["ids"]
    assert [ask("GET", f"/tasks/{id}", status=200)["callback_url"] for id in ids] == [None, URL, None]


# Delivery


@pytest.fixture
def receiver():
    with ScriptedUpstream() as receiver:
        yield receiver


def settings_for(receiver, **more) -> CallbackSettings:
    fields = {"callback_hosts": f"127.0.0.1:{receiver.port}", "callback_secret": SECRET, **more}
    return CallbackSettings(**fields, _env_file=None)


def deliver(receiver, settings=None, data=None, **options):
    data = {"имя": [1.5, None]} if data is None else data
    payload = {"url": f"{receiver.url}/ended?of=crane", "event": {"id": "1", "data": data}}
    return run_once(callback, payload, settings=settings or settings_for(receiver), **options)


def test_a_callback_is_signed_as_the_page_says(receiver):
    receiver.script(answer(204))

    assert deliver(receiver) == {"status": 204}

    (seen,) = receiver.requests()
    said = seen.value("Siteworks-Signature")
    assert seen.line == b"POST /ended?of=crane HTTP/1.1"
    assert seen.value("Content-Type") == "application/cloudevents+json"
    assert json.loads(seen.body) == {"id": "1", "data": {"имя": [1.5, None]}}
    assert is_genuine(said, seen.body, SECRET)
    assert not is_genuine(said, seen.body + b" ", SECRET)
    assert not is_genuine(said, seen.body, SECRET + "!")
    assert not is_genuine(said, seen.body, SECRET, seconds=-1)
    assert not is_genuine(said.replace("t=", "t=1"), seen.body, SECRET)
    assert not is_genuine("", seen.body, SECRET)


def test_a_result_is_told_to_the_last_digit_and_level(receiver):
    receiver.script(answer(204))
    deep = Decimal("0." + "3" * 60)
    for _ in range(300):
        deep = [deep]

    deliver(receiver, data={"result": deep})

    (seen,) = receiver.requests()
    assert json.loads(seen.body, parse_float=Decimal)["data"] == {"result": deep}


def test_two_secrets_make_two_signatures_and_a_new_file_needs_no_restart(receiver, tmp_path):
    file = tmp_path / "secret"
    file.write_text("the new secret 1, the old secret 2\n", encoding="utf-8")
    settings = settings_for(receiver, callback_secret=None, callback_secret_file=file)
    deliver(receiver, settings)
    file.write_text("third-secret-of-all\n", encoding="utf-8")
    deliver(receiver, settings)

    first, second = receiver.requests()
    assert [
        is_genuine(seen.value("Siteworks-Signature"), seen.body, secret)
        for seen in (first, second)
        for secret in ("the new secret 1", "the old secret 2", "third-secret-of-all")
    ] == [True, True, False, False, False, True]


@pytest.mark.parametrize(
    ("status", "fields", "raised"),
    [
        (500, [], RequestFailed),
        (404, [], RequestFailed),
        (429, [("Retry-After", "7")], RetryAfter),
        (410, [], GiveUp),
        (302, [("Location", "/elsewhere")], RequestFailed),
    ],
)
def test_any_answer_but_a_2xx_is_tried_again_and_410_ends_it(receiver, status, fields, raised):
    receiver.script(answer(status, b"not yet", fields=fields))

    with pytest.raises(raised, match=f"the answer was {status} Some Reason: not yet"):
        deliver(receiver)
    assert len(receiver.requests()) == 1


def test_hosts_and_addresses_are_looked_at_again_before_each_delivery(receiver):
    with pytest.raises(GiveUp, match="CALLBACK_HOSTS does not name 127"):
        deliver(receiver, settings_for(receiver, callback_hosts="site.example.com"))

    local = {"url": f"http://localhost:{receiver.port}/", "event": {}}
    named = {"callback_hosts": f"localhost:{receiver.port}"}
    with pytest.raises(GiveUp, match="PRIVATE_NETWORKS names none"):
        run_once(callback, local, settings=settings_for(receiver, **named))
    assert receiver.requests() == []
    listed = settings_for(receiver, **named, private_networks="127.0.0.0/8, ::1")
    assert run_once(callback, local, settings=listed) == {"status": 200}


def test_a_worker_tells_the_end_of_a_task_and_tries_again(bench, start_worker, receiver):
    receiver.scripts([answer(503, fields=[("Retry-After", "0")])], [answer(200)])
    start_worker(noop, callback.with_settings(settings_for(receiver)))

    task_id = bench.add(callback_url=f"{receiver.url}/ended")

    told = bench.wait_for(bench.wait_for(task_id, State.COMPLETED).callback_task_id, State.COMPLETED)
    assert (told.result, told.attempts) == ('{"status": 200}', 2)
    first, second = receiver.requests()
    assert first.body == second.body
    assert json.loads(first.body)["id"] == str(told.id)
    assert {seen.value("Idempotency-Key") for seen in (first, second)} == {str(told.id)}
    # Its own end is told to nobody.
    assert [callback_id for callback_id, _ in callbacks(bench)] == [told.id]


def test_a_worker_killed_between_the_end_and_the_delivery_loses_nothing(bench, start_process, receiver):
    settings = {"CALLBACK_HOSTS": f"127.0.0.1:{receiver.port}", "CALLBACK_SECRET": SECRET}
    # Paused, so that the end is there and the delivery has not begun.
    bench.store.control("callback", {"paused": True})
    first = start_process(**settings)
    task_id = bench.add(callback_url=f"{receiver.url}/ended")
    bench.wait_for(task_id, State.COMPLETED, timeout=20)
    first.end(signal.SIGKILL)
    assert receiver.requests() == []

    bench.store.control("callback", {"paused": False})
    start_process(**settings)

    bench.wait_for(bench.get(task_id).callback_task_id, State.COMPLETED, timeout=20)
    (seen,) = receiver.requests()
    assert json.loads(seen.body)["subject"] == str(task_id)
    assert is_genuine(seen.value("Siteworks-Signature"), seen.body, SECRET)
