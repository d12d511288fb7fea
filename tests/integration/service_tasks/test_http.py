"""The task service over HTTP, on a real PostgreSQL and without a worker unless a test starts one."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from psycopg2 import Binary

from service_tasks.app import create_app
from service_tasks.domain.task import AttemptError, FailedForGood, State, Succeeded
from service_tasks.schemas.tasks import TaskCreate
from service_tasks.settings import TasksSettings
from service_tasks.task_types.io import io
from service_tasks.task_types.noop import noop
from servicekit.events.tombstones import bury
from servicekit.process.clock import utc_now
from servicekit.process.ids import new_id
from servicekit.web.idempotency import fingerprint
from tests.integration.service_tasks.test_task_store import ERROR
from tests.support.waiting import eventually


class Client:
    def __init__(self, client) -> None:
        self._client = client
        self.app = client.application

    def __call__(self, method: str, path: str, body=None, *, status: int, headers=None):
        """Ask, compare the status, and give what is in the envelope."""
        sent = {} if body is None else {"json": body}
        response = self._client.open(path, method=method, headers=headers, **sent)
        answer = response.get_json()
        assert response.status_code == status, answer
        assert answer["success"] is (status < 400)
        self.headers = response.headers
        return answer["data"] if status < 400 else answer["error"]


@pytest.fixture
def ask(tasks_database) -> Client:
    settings = TasksSettings(tasks_database_url=tasks_database.url, _env_file=None)
    return Client(create_app(settings).test_client())


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def fields(error) -> list[str]:
    return [detail["field"] for detail in error.get("details", [])]


# Creating


def test_an_empty_body_makes_a_task_of_the_default_type(ask):
    task = ask("POST", "/tasks", status=201)

    assert ask.headers["Location"] == f"/tasks/{task['id']}"
    assert task == ask("GET", f"/tasks/{task['id']}", status=200)
    assert {
        name: task[name] for name in ("task_type", "payload", "status", "attempts", "max_attempts", "priority")
    } == {
        "task_type": "noop",
        "payload": {},
        "status": "pending",
        "attempts": 0,
        "max_attempts": 3,
        "priority": 50,
    }
    assert (task["progress"], task["result"], task["errors"]) == ({"percent": 0, "message": None}, None, [])
    assert (task["started_at"], task["completed_at"], task["duration"]) == (None, None, None)
    assert task["created_at"].endswith("Z")


def test_a_wrong_payload_is_refused_in_our_own_words(ask):
    payload = {"seconds": "2", "failures": 1.5, "colour": 1}
    error = ask("POST", "/tasks", {"task_type": "io", "payload": payload}, status=400)
    assert {one["field"]: one["message"] for one in error["details"]} == {
        "payload.seconds": "must be a number",
        "payload.failures": "must be a whole number",
        "payload.colour": "unknown field",
    }


def test_everything_that_was_said_comes_back_unchanged(ask):
    body = {
        "task_type": "measure",
        "title": "Замерить кран №7 — 起重机",
        "payload": [1, 2.50, "Чокопай", None, {"глубина": {"a": [True]}}],
        "execute_at": "2090-05-01T10:00:00.5+03:00",
        "max_attempts": 25,
        "priority": 0,
        "timeout": 1.5,
        "user_id": str(uuid4()),
    }

    task = ask("POST", "/tasks", body, status=201)

    assert {name: task[name] for name in body} == {**body, "execute_at": "2090-05-01T07:00:00.500000Z"}


@pytest.mark.parametrize("payload", [None, 0, False, "", [], "text", {"a": None}])
def test_any_json_is_a_payload(ask, payload):
    task = ask("POST", "/tasks", {"task_type": "anything", "payload": payload}, status=201)

    assert task["payload"] == payload
    assert "payload" not in task["omitted"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"execute_at": "2020-01-01T00:00:00Z"}, "execute_at"),
        ({"execute_at": "2090-01-01T00:00:00"}, "execute_at"),
        ({"execute_at": "9999-12-31T23:59:59-14:00"}, "execute_at"),
        ({"execute_at": "9998-12-31T23:59:59Z"}, "execute_at"),
        ({"execute_at": "2090-02-30T00:00:00Z"}, "execute_at"),
        ({"execute_at": 4102444800}, "execute_at"),
        ({"status": "New"}, "status"),
        ({"colour": "red"}, "colour"),
        ({"task_type": "x" * 51}, "task_type"),
        ({"task_type": ""}, "task_type"),
        ({"task_type": 7}, "task_type"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_attempts": 26}, "max_attempts"),
        ({"max_attempts": "3"}, "max_attempts"),
        ({"max_attempts": True}, "max_attempts"),
        ({"max_attempts": 3.5}, "max_attempts"),
        ({"title": "a\u202eb"}, "title"),
        ({"priority": -1}, "priority"),
        ({"priority": 101}, "priority"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": 86401}, "timeout"),
        ({"timeout": "60"}, "timeout"),
        ({"user_id": "7"}, "user_id"),
        ({"title": ""}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"task_type": "io", "payload": {"seconds": -1}}, "payload.seconds"),
        ({"task_type": "io", "payload": {"seconds": 3601}}, "payload.seconds"),
        ({"task_type": "io", "payload": {"seconds": "2"}}, "payload.seconds"),
        ({"task_type": "io", "payload": {"seconds": True}}, "payload.seconds"),
        ({"task_type": "io", "payload": {"failures": 1.5}}, "payload.failures"),
        ({"task_type": "io", "payload": {"colour": 1}}, "payload.colour"),
        ({"task_type": "io", "payload": []}, "payload"),
    ],
)
def test_bad_input_is_refused_by_the_name_of_the_field(ask, body, field):
    error = ask("POST", "/tasks", body, status=400)

    assert (error["code"], fields(error)) == ("invalid_input", [field])


def test_a_payload_of_256_kib_is_taken_and_one_byte_more_is_not(ask):
    largest = "x" * (256 * 1024 - 2)

    assert ask("POST", "/tasks", {"payload": largest}, status=201)["payload"] == largest
    error = ask("POST", "/tasks", {"payload": largest + "x"}, status=413)
    assert (error["code"], fields(error)) == ("payload_too_large", ["payload"])


def test_an_io_task_needs_no_payload(ask):
    assert ask("POST", "/tasks", {"task_type": "io"}, status=201)["payload"] == {}


def test_a_decimal_is_a_good_number_of_seconds(ask):
    task = ask("POST", "/tasks", {"task_type": "io", "payload": {"seconds": 0.25}}, status=201)

    assert task["payload"] == {"seconds": 0.25}


def test_a_type_that_no_worker_runs_stays_pending_and_says_so(ask, bench):
    task = ask("POST", "/tasks", {"task_type": "measure"}, status=201)
    assert (task["status"], task["waiting_for"]) == ("pending", "no worker runs this type")

    bench.register(types=("measure",))
    assert ask("GET", f"/tasks/{task['id']}", status=200)["waiting_for"] is None


# Idempotency


def test_the_same_key_and_request_give_the_same_task_whatever_the_order_of_fields(ask):
    key = {"Idempotency-Key": "order-17"}
    first = ask("POST", "/tasks", {"task_type": "a", "payload": {"x": 1, "y": 2}}, status=201, headers=key)
    assert "Idempotency-Replayed" not in ask.headers
    again = ask("POST", "/tasks", {"payload": {"y": 2, "x": 1}, "task_type": "a"}, status=201, headers=key)

    assert again["id"] == first["id"]
    assert ask.headers["Idempotency-Replayed"] == "true"
    assert ask("GET", "/tasks", status=200)["total"] == 1


def test_the_same_key_with_another_request_is_a_conflict(ask):
    key = {"Idempotency-Key": "order-17"}
    ask("POST", "/tasks", {"payload": 1}, status=201, headers=key)

    assert ask("POST", "/tasks", {"payload": 2}, status=409, headers=key)["code"] == "idempotency_key_reused"


def test_a_second_try_does_not_fail_because_its_time_has_passed_meanwhile(ask, bench):
    key, body = {"Idempotency-Key": "later"}, {"execute_at": soon(60)}
    task = ask("POST", "/tasks", body, status=201, headers=key)
    bench.sql("UPDATE tasks SET request_hash = request_hash, execute_at = now() - interval '1 hour'")
    again = ask("POST", "/tasks", body, status=201, headers=key)

    assert again["id"] == task["id"]


@pytest.mark.parametrize("body", [{"execute_at": "2020-01-01T00:00:00Z"}, {"user_id": str(UUID(int=1))}])
def test_what_may_not_be_made_any_more_is_answered_with_what_was_made(ask, bench, body):
    with bench.database.transaction() as session:
        bury(session, UUID(int=1), utc_now())
    key = {"Idempotency-Key": "k"}
    task = ask("POST", "/tasks", status=201, headers=key)
    assert ask("POST", "/tasks", body, status=409, headers=key)["code"] == "idempotency_key_reused"
    bench.sql("UPDATE tasks SET request_hash = %s", Binary(fingerprint(TaskCreate.model_validate(body))))

    assert ask("POST", "/tasks", body, status=201, headers=key)["id"] == task["id"]
    ask("POST", "/tasks", body, status=400, headers={"Idempotency-Key": "new"})


def test_a_key_that_was_answered_with_a_task_that_lived_leads_to_it_after_its_end(ask):
    key, body = {"Idempotency-Key": "k"}, {"unique_key": "daily"}
    first = ask("POST", "/tasks", body, status=201)
    assert ask("POST", "/tasks", body, status=201, headers=key)["id"] == first["id"]
    ask("DELETE", f"/tasks/{first['id']}", status=200)

    again = ask("POST", "/tasks", body, status=201, headers=key)

    assert again["id"] == first["id"]
    assert ask.headers["Idempotency-Replayed"] == "true"
    assert ask("POST", "/tasks", {**body, "priority": 1}, status=409, headers=key)["code"] == "idempotency_key_reused"
    assert ask("POST", "/tasks", status=409, headers=key)["code"] == "idempotency_key_reused"
    assert ask("GET", "/tasks", status=200)["total"] == 1
    ask("DELETE", f"/tasks/{first['id']}?purge=true", status=200)
    assert ask("POST", "/tasks", body, status=201, headers=key)["id"] != first["id"]


def test_a_key_is_free_again_after_a_purge(ask):
    key = {"Idempotency-Key": "k"}
    first = ask("POST", "/tasks", status=201, headers=key)
    ask("DELETE", f"/tasks/{first['id']}?purge=true", status=200)

    assert ask("POST", "/tasks", status=201, headers=key)["id"] != first["id"]


@pytest.mark.parametrize("key", ["", "x" * 201, "two words", "ключ".encode().decode("latin-1")])
def test_a_key_that_is_no_key_is_refused(ask, key):
    error = ask("POST", "/tasks", status=400, headers={"Idempotency-Key": key})

    assert fields(error) == ["Idempotency-Key"]


# Reading


def test_a_list_is_newest_first_filtered_and_exactly_counted(ask, bench):
    made = [ask("POST", "/tasks", {"task_type": name}, status=201)["id"] for name in ("a", "b", "a", "a")]
    ask("DELETE", f"/tasks/{made[3]}", status=200)

    everything = ask("GET", "/tasks", status=200)
    assert [task["id"] for task in everything["tasks"]] == made[::-1]
    assert {name: everything[name] for name in ("total", "limit", "offset", "next")} == {
        "total": 4,
        "limit": 50,
        "offset": 0,
        "next": None,
    }
    page = ask("GET", "/tasks?status=pending&task_type=a&limit=1", status=200)
    assert ([task["id"] for task in page["tasks"]], page["total"], page["next"]) == ([made[2]], 2, made[2])
    rest = ask("GET", f"/tasks?status=pending&task_type=a&limit=1&after={page['next']}", status=200)
    assert ([task["id"] for task in rest["tasks"]], rest["total"], rest["next"]) == ([made[0]], 2, None)
    assert ask("GET", "/tasks?offset=3", status=200)["tasks"][0]["id"] == made[0]


def test_other_services_words_filter_too(ask, bench):
    task_id = bench.add()
    for word in ("New", "PENDING", "scheduled"):
        assert ask("GET", f"/tasks?status={word}", status=200)["total"] == 1
    (claimed,) = bench.claim(bench.register())
    for word in ("In%20Progress", "in_progress", "Running", "processing"):
        assert ask("GET", f"/tasks?status={word}", status=200)["total"] == 1
    bench.engine.write([Succeeded(claimed.lease, "1")], "w")
    for word in ("Done", "Completed"):
        assert ask("GET", f"/tasks?status={word}", status=200)["tasks"][0]["id"] == str(task_id)
    assert ask("GET", "/tasks?status=New", status=200)["total"] == 0


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=ready", "status"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("offset=-1", "offset"),
        ("after=7", "after"),
        ("user_id=7", "user_id"),
        ("task_type=", "task_type"),
        ("colour=red", "colour"),
    ],
)
def test_a_wrong_filter_is_refused_by_name(ask, query, field):
    assert fields(ask("GET", f"/tasks?{query}", status=400)) == [field]


def test_the_tasks_of_a_user_are_that_users_alone(ask):
    user = str(uuid4())
    mine = ask("POST", "/tasks", {"user_id": user}, status=201)["id"]
    ask("POST", "/tasks", status=201)

    for path in (f"/users/{user}/tasks", f"/tasks?user_id={user}"):
        page = ask("GET", path, status=200)
        assert ([task["id"] for task in page["tasks"]], page["total"]) == ([mine], 1)
    assert ask("GET", f"/users/{uuid4()}/tasks?status=New", status=200)["total"] == 0


def test_status_and_result_tell_how_a_task_stands_and_how_it_ended(ask, bench):
    task_id = bench.add()
    waiting = ask("GET", f"/tasks/{task_id}/status", status=200)
    assert (waiting["status"], waiting["duration"]) == ("pending", None)
    assert ask("GET", f"/tasks/{task_id}/result", status=409)["code"] == "task_not_finished"

    (claimed,) = bench.claim(bench.register())
    assert ask("GET", f"/tasks/{task_id}/status", status=200)["duration"] >= 0
    assert "processing" in ask("GET", f"/tasks/{task_id}/result", status=409)["message"]

    bench.engine.write([Succeeded(claimed.lease, '{"sum": 2.50}')], "w")
    ended = ask("GET", f"/tasks/{task_id}/result", status=200)
    assert (ended["status"], ended["result"], ended["error"]) == ("completed", {"sum": 2.5}, None)


def test_a_failed_task_tells_why_but_shows_no_traceback(ask, bench):
    task_id = bench.add()
    (claimed,) = bench.claim(bench.register())
    bench.engine.write([FailedForGood(claimed.lease, ERROR)], "host:1")

    task = ask("GET", f"/tasks/{task_id}", status=200)
    assert (task["status"], task["error"]) == ("failed", "it broke")
    (error,) = task["errors"]
    assert error.keys() == {"attempt", "type", "message", "failed_at", "worker", "trace"}
    assert error["trace"] is None
    assert error["failed_at"].endswith("Z")
    result = ask("GET", f"/tasks/{task_id}/result", status=200)
    assert (result["status"], result["result"], result["error"]) == ("failed", None, "it broke")


def test_the_trace_of_a_failed_attempt_is_shown_to_whoever_asks_for_it(ask, bench):
    task_id = bench.add()
    (claimed,) = bench.claim(bench.register())
    error = AttemptError("Broken", "it broke", "Traceback: в строке 1")
    bench.engine.write([FailedForGood(claimed.lease, error)], "host:1")

    def traces(path: str) -> list:
        return [error["trace"] for error in ask("GET", path, status=200)["errors"]]

    assert traces(f"/tasks/{task_id}?trace=true") == ["Traceback: в строке 1"]
    assert traces(f"/tasks/{task_id}") == traces(f"/tasks/{task_id}?trace=false") == [None]
    (listed,) = ask("GET", "/tasks", status=200)["tasks"]
    assert [error["trace"] for error in listed["errors"]] == [None]
    assert fields(ask("GET", f"/tasks/{task_id}?trace=maybe", status=400)) == ["trace"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/tasks/{id}"),
        ("GET", "/tasks/{id}/status"),
        ("GET", "/tasks/{id}/result"),
        ("DELETE", "/tasks/{id}"),
        ("DELETE", "/tasks/{id}?purge=true"),
        ("POST", "/tasks/{id}/retry"),
    ],
)
def test_a_task_that_does_not_exist_is_not_found(ask, method, path):
    assert ask(method, path.format(id=new_id()), status=404)["code"] == "task_not_found"
    assert ask(method, path.format(id="17"), status=400)["code"] == "invalid_input"


def test_the_task_types_show_what_their_payload_must_be(ask, bench):
    bench.register(types=("io", "elsewhere"))

    answer = ask("GET", "/task-types", status=200)

    kinds = {kind["name"]: kind for kind in answer["task_types"]}
    assert list(kinds) == ["account_mail", "callback", "elsewhere", "http_request", "io", "noop", "send_email"]
    assert (answer["total"], answer["default"]) == (7, "noop")
    assert kinds["io"]["payload_schema"]["properties"]["seconds"]["maximum"] == 3600
    assert (kinds["io"]["workers"], kinds["noop"]["workers"], kinds["elsewhere"]["workers"]) == (1, 0, 1)
    assert kinds["noop"]["payload_schema"] == {}
    assert set(kinds["io"]["result_schema"]["properties"]) == {"waited_seconds", "attempt"}
    assert kinds["noop"]["result_schema"] == {}
    assert kinds["io"]["limits"] == {"max_running": None, "max_running_per_user": None}
    assert (kinds["io"]["retry"], kinds["io"]["max_attempts"], kinds["io"]["needs"]) == (None, 3, [])
    assert kinds["send_email"]["needs"] == ["SMTP_HOST", "SMTP_FROM"]
    assert (kinds["send_email"]["retry"]["base_seconds"], kinds["send_email"]["max_attempts"]) == (30, 5)
    shown = ("payload_schema", "result_schema", "timeout", "max_attempts", "retry", "limits")
    assert [kinds["elsewhere"][name] for name in shown] == [None] * len(shown)


def test_a_task_that_names_no_attempts_gets_those_of_its_type(ask):
    email = {"to": "user@example.com", "subject": "Reminder"}

    assert ask("POST", "/tasks", {"task_type": "send_email", "payload": email}, status=201)["max_attempts"] == 5
    named = {"task_type": "send_email", "payload": email, "max_attempts": 1}
    assert ask("POST", "/tasks", named, status=201)["max_attempts"] == 1
    assert ask("POST", "/tasks", {"task_type": "io"}, status=201)["max_attempts"] == 3
    assert ask("POST", "/tasks", {"task_type": "elsewhere"}, status=201)["max_attempts"] == 3


def test_a_task_whose_type_lacks_its_settings_waits_and_says_what_to_set(ask, bench):
    body = {"task_type": "send_email", "payload": {"to": "user@example.com", "subject": "Reminder"}}
    task = ask("POST", "/tasks", body, status=201)
    reason = "no worker runs this type; it needs SMTP_HOST and SMTP_FROM to be set for the workers"
    assert task["waiting_for"] == reason

    bench.register(types=("send_email",))
    assert ask("GET", f"/tasks/{task['id']}", status=200)["waiting_for"] is None


def test_light_tasks_have_neither_payload_nor_result_and_a_hundred_of_them_are_small(ask, bench):
    bench.register()
    ids = [ask("POST", "/tasks", {"payload": "x" * 9_000}, status=201)["id"] for _ in range(100)]
    bench.sql(
        "UPDATE tasks SET state = 'failed', completed_at = now(), error = repeat('\"', 2000), "
        """errors = jsonb_build_array(jsonb_build_object('attempt', 1, 'type', 'E', 'message', repeat('x', 2000),
            'failed_at', '2026-01-31T15:00:00Z', 'worker', 'w'))"""
    )

    tasks = ask("GET", "/tasks?limit=100&light=true", status=200)["tasks"]
    one = ask("GET", f"/tasks/{ids[0]}?light=true", status=200)

    assert len(json.dumps(tasks)) < 150_000
    assert {(task["payload"], len(task["error"]), len(task["errors"]), *task["omitted"]) for task in tasks} == {
        (None, 200, 0, "payload", "errors")
    }
    assert (one["payload"], len(one["error"]), len(one["errors"]), one["omitted"]) == (None, 2000, 1, ["payload"])
    bench.sql("UPDATE tasks SET state = 'completed', result = '7', error = NULL")
    assert ask("GET", f"/tasks/{ids[0]}?light=true", status=200)["omitted"] == ["payload", "result"]


# Cancelling, purging, retrying


def test_a_live_task_is_cancelled_once(ask, bench):
    pending, running = bench.add(execute_at=datetime.now(UTC) + timedelta(hours=1)), bench.add()
    bench.claim(bench.register())

    for task_id in (pending, running):
        cancelled = ask("DELETE", f"/tasks/{task_id}", status=200)
        assert cancelled["status"] == "cancelled"
        assert cancelled["completed_at"] is not None
        assert ask("DELETE", f"/tasks/{task_id}", status=404)["code"] == "task_not_found"


def test_a_purge_removes_the_record(ask):
    task = ask("POST", "/tasks", status=201)

    assert ask("DELETE", f"/tasks/{task['id']}?purge=true", status=200)["status"] == "cancelled"
    ask("GET", f"/tasks/{task['id']}", status=404)


def test_a_failed_task_can_be_run_again_with_all_its_attempts(ask, bench):
    task_id = bench.add()
    (claimed,) = bench.claim(bench.register())
    error = ask("POST", f"/tasks/{task_id}/retry", status=409)
    assert error["code"] == "task_state_conflict"
    assert "processing" in error["message"]
    bench.engine.write([FailedForGood(claimed.lease, ERROR)], "w")

    again = ask("POST", f"/tasks/{task_id}/retry", status=200)

    assert (again["status"], again["attempts"], again["error"], len(again["errors"])) == ("pending", 0, None, 1)
    assert bench.get(task_id).state is State.READY


# With a worker


def test_a_created_task_starts_at_once_by_announcement_and_not_by_the_poll(ask, bench, start_worker):
    start_worker(io, noop, poll_seconds=60)
    listening = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%%' AND datname = current_database()"
    eventually(lambda: bench.sql(listening))
    for seconds in (None, 0.5):
        when = {} if seconds is None else {"execute_at": soon(seconds)}
        task = ask("POST", "/tasks", {"task_type": "noop", **when}, status=201)
        done = bench.wait_for(task["id"], State.COMPLETED, timeout=5)
        assert json.loads(done.result or "") is None


# Batches, unique keys, limits


def test_a_batch_makes_its_tasks_in_their_order(ask):
    answer = ask(
        "POST", "/tasks/batch", {"tasks": [{"priority": 1}, {"task_type": "io", "payload": {"seconds": 1}}]}, status=201
    )

    assert (answer["created"], answer["existing"]) == (2, [])
    made = [ask("GET", f"/tasks/{task_id}", status=200) for task_id in answer["ids"]]
    assert [(task["task_type"], task["priority"]) for task in made] == [("noop", 1), ("io", 50)]


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"priority": 101}, "tasks.1.priority"),
        ({"task_type": "io", "payload": {"seconds": -1}}, "tasks.1.payload.seconds"),
        ({"execute_at": "2020-01-01T00:00:00Z"}, "tasks.1.execute_at"),
        ({"colour": "red"}, "tasks.1.colour"),
        (7, "tasks.1"),
    ],
)
def test_one_bad_task_refuses_the_whole_batch_and_is_named(ask, bad, field):
    error = ask("POST", "/tasks/batch", {"tasks": [{}, bad, {}]}, status=400)

    assert fields(error) == [field]
    assert ask("GET", "/tasks", status=200)["total"] == 0


def test_a_payload_that_is_too_large_is_named_in_its_batch(ask):
    error = ask("POST", "/tasks/batch", {"tasks": [{}, {"payload": "x" * 300_000}]}, status=413)

    assert (error["code"], fields(error)) == ("payload_too_large", ["tasks.1.payload"])


@pytest.mark.parametrize("count", [0, 10_001])
def test_a_batch_has_1_to_10000_tasks(ask, count):
    assert fields(ask("POST", "/tasks/batch", {"tasks": [{}] * count}, status=400)) == ["tasks"]


def test_a_unique_key_answers_with_the_task_that_is_alive(ask):
    first = ask("POST", "/tasks", {"unique_key": "daily"}, status=201)
    second = ask("POST", "/tasks", {"unique_key": "daily", "priority": 1}, status=201)
    assert second == first
    assert (ask.headers["Location"], ask.headers["Existing-Task"]) == (f"/tasks/{first['id']}", "true")

    batch = ask("POST", "/tasks/batch", {"tasks": [{}, {"unique_key": "daily"}]}, status=201)
    assert (batch["ids"][1], batch["created"], batch["existing"]) == (first["id"], 1, [1])

    ask("DELETE", f"/tasks/{first['id']}", status=200)
    third = ask("POST", "/tasks", {"unique_key": "daily"}, status=201)
    assert ask("POST", f"/tasks/{first['id']}/retry", status=409)["code"] == "unique_key_taken"
    assert third["id"] != first["id"]


def test_a_type_is_paused_and_resumed(ask, bench):
    bench.register()
    task = ask("POST", "/tasks", status=201)

    assert ask("POST", "/task-types/noop/pause", status=200)["paused"] is True
    shown = ask("GET", f"/tasks/{task['id']}", status=200)
    assert (shown["waiting_for"], shown["obstacle"]) == ("this type is paused", "paused")
    assert ask("POST", "/task-types/noop/resume", status=200)["paused"] is False
    assert ask("GET", f"/tasks/{task['id']}", status=200)["waiting_for"] is None


def test_a_task_that_waits_because_its_worker_died_says_so(ask, bench):
    bench.register()
    task = ask("POST", "/tasks", status=201)
    bench.sql("UPDATE tasks SET state = 'scheduled', suspects = 2")

    assert "a worker died" in ask("GET", f"/tasks/{task['id']}", status=200)["waiting_for"]
    bench.sql("UPDATE tasks SET state = 'ready'")
    assert ask("GET", f"/tasks/{task['id']}", status=200)["waiting_for"] is None


def test_the_document_shows_the_bounds_of_a_timeout(tasks_database):
    settings = TasksSettings(tasks_database_url=tasks_database.url, _env_file=None)
    schemas = create_app(settings).test_client().get("/openapi.json").get_json()["components"]["schemas"]

    for name in ("TaskCreate", "ScheduleCreate", "ScheduleUpdate"):
        number = schemas[name]["properties"]["timeout"]["anyOf"][0]
        assert (number["minimum"], number["maximum"]) == (0.1, 86_400)


def test_limits_of_a_type_are_set_and_taken_away_one_by_one(ask):
    ask("POST", "/tasks", {"task_type": "paint"}, status=201)
    ask("PUT", "/task-types/paint", {"max_running": 3, "max_running_per_user": 1}, status=200)
    shown = ask("PUT", "/task-types/paint", {"max_running": None}, status=200)

    assert (shown["name"], shown["max_running"], shown["max_running_per_user"]) == ("paint", None, 1)
    listed = {item["name"]: item for item in ask("GET", "/task-types", status=200)["task_types"]}
    assert listed["paint"] == shown
    assert fields(ask("PUT", "/task-types/paint", {"max_running": 0}, status=400)) == ["max_running"]
    assert fields(ask("POST", f"/task-types/{'x' * 51}/pause", status=400)) == ["name"]


def test_only_known_and_seen_types_can_be_paused_or_limited(ask, bench):
    day = "2999-01-01T00:00:00Z"
    ask("POST", "/tasks", {"task_type": "waits"}, status=201)
    ask("POST", "/tasks", {"task_type": "for later", "execute_at": day}, status=201)
    ask("POST", "/schedules", {"name": "one day", "task_type": "scheduled", "at": day}, status=201)
    bench.register(types=("runs",))
    bench.sql(
        "INSERT INTO task_minutes (minute, worker_id, task_type, completed, failed, retried, waits, runs)"
        " VALUES (now(), %s, 'ran', 1, 0, 0, '{}', '{}')",
        str(new_id()),
    )

    for name in ("io", "waits", "for later", "scheduled", "runs", "ran"):
        assert ask("POST", f"/task-types/{name}/pause", status=200)["paused"] is True
        assert ask("POST", f"/task-types/{name}/resume", status=200)["paused"] is False
    for method, path, body in (
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("PUT", "", {"max_running": 1}),
        ("DELETE", "", None),
    ):
        assert ask(method, f"/task-types/invented{path}", body, status=404)["code"] == "task_type_not_found"
    assert bench.sql("SELECT name FROM task_type_controls") == []


def test_the_settings_of_a_type_are_forgotten_at_once(ask, bench):
    announced = bench.register()
    task = bench.add()
    ask("PUT", "/task-types/noop", {"max_running": 3}, status=200)
    paused = ask("POST", "/task-types/noop/pause", status=200)

    assert ask("DELETE", "/task-types/noop", status=200) == paused
    bare = {"paused": False, "max_running": None, "max_running_per_user": None}
    assert ask("DELETE", "/task-types/noop", status=200) == {**paused, **bare}
    assert bench.store.controls() == {}
    assert [one.lease.task_id for one in bench.claim(announced)] == [task]


def test_a_setting_that_says_nothing_leaves_no_row_and_there_are_at_most_a_thousand(ask, bench):
    ask("PUT", "/task-types/noop", {"max_running": 1}, status=200)
    ask("PUT", "/task-types/noop", {"max_running": None}, status=200)
    assert bench.store.controls() == {}

    bench.sql(
        "INSERT INTO task_type_controls (name, paused) SELECT 'type ' || n, true FROM generate_series(1, 1000) AS n"
    )
    assert ask("POST", "/task-types/noop/pause", status=409)["code"] == "limit_reached"
    ask("PUT", "/task-types/type 7", {"max_running": 1}, status=200)
    page = ask("GET", "/task-types?limit=2&offset=6", status=200)
    assert [kind["name"] for kind in page["task_types"]] == ["type 1", "type 10"]
    assert (page["total"], page["limit"], page["offset"]) == (1006, 2, 6)
    ask("DELETE", "/task-types/type 1000", status=200)
    ask("POST", "/task-types/noop/pause", status=200)
