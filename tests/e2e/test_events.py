"""A deleted user's open orders and live tasks are cancelled, soon and once, whatever is killed in between."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg2
import pytest

from tests.support.system import RunningSystem
from tests.support.waiting import eventually


class Person:
    """A user with open orders and live tasks."""

    def __init__(self, system: RunningSystem) -> None:
        self.system = system
        user = system.post("/users", {"email": f"{uuid.uuid4().hex}@example.com", "name": "Белов Ярослав"})
        self.id = user.data["id"]
        self.orders = [self._order() for _ in range(3)]
        assert system.put(f"/orders/{self.orders[1]}", {"status": "in_progress"}).status == 200
        self.running = self._task(task_type="io", payload={"seconds": 100})
        self.future = self._task(execute_at="2099-01-01T00:00:00Z")
        system.wait_for_task(self.running, "processing")

    def _order(self) -> str:
        body = {"user_id": self.id, "items": [{"product": "nails", "quantity": 1, "price": 2}]}
        return str(self.system.post("/orders", body).data["id"])

    def _task(self, **fields: Any) -> str:
        return str(self.system.post("/tasks", {"user_id": self.id, **fields}).data["id"])

    def delete(self) -> None:
        assert self.system.delete(f"/users/{self.id}").status == 200

    def all_cancelled(self) -> bool:
        try:
            orders = [self.system.get(f"/orders/{order_id}") for order_id in self.orders]
            tasks = [self.system.get(f"/tasks/{task_id}") for task_id in (self.running, self.future)]
        except OSError:
            return False
        shown = [*orders, *tasks]
        return all(reply.status == 200 and reply.data["status"] == "cancelled" for reply in shown)


@pytest.fixture
def person(system: RunningSystem) -> Person:
    """A test before may have left a service or its circuit on the way back."""
    for path in ("/users", "/orders", "/tasks"):
        eventually(lambda path=path: _answers(system, path), timeout=60, what=f"{path} answers")
    return Person(system)


def _answers(system: RunningSystem, path: str) -> bool:
    try:
        return system.get(path).status == 200
    except OSError:
        return False


def _sql(system: RunningSystem, database: str, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    password = (system.data / "secrets" / database).read_text().strip()
    connection = psycopg2.connect(
        host="127.0.0.1", port=system.port + 5, user=database, password=password, dbname=database
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall()
    finally:
        connection.close()


def _cancelled_once(person: Person) -> None:
    rows = _sql(
        person.system,
        "orders",
        "SELECT subject::text, count(*) FROM outbox WHERE type = 'order.status_changed'"
        " AND data ->> 'cancel_reason' = 'the user was deleted' AND data ->> 'user_id' = %s GROUP BY subject",
        person.id,
    )
    assert sorted(rows) == sorted((order_id, 1) for order_id in person.orders)
    for database in ("orders", "tasks"):
        assert _sql(person.system, database, "SELECT count(*) FROM tombstones WHERE id = %s", person.id) == [(1,)]
    statement = "SELECT count(*) FROM outbox_deliveries d JOIN outbox USING (position) WHERE outbox.subject = %s"
    eventually(
        lambda: _sql(person.system, "users", statement, person.id) == [(0,)], timeout=60, what="it is acknowledged"
    )


def test_open_orders_and_live_tasks_are_cancelled_with_the_reason(person):
    person.delete()
    eventually(person.all_cancelled, what="everything is cancelled")

    for order_id in person.orders:
        assert person.system.get(f"/orders/{order_id}").data["cancel_reason"] == "the user was deleted"
    for task_id in (person.running, person.future):
        assert person.system.get(f"/tasks/{task_id}").data["error"] == "the user was deleted"
    _cancelled_once(person)


def test_the_handler_of_a_running_task_is_stopped(person):
    person.delete()

    statement = "SELECT count(*) FROM tasks WHERE id = %s AND worker_id IS NULL AND state = 'cancelled'"
    eventually(lambda: _sql(person.system, "tasks", statement, person.running) == [(1,)], what="the worker let go")


def test_nothing_can_be_made_for_a_deleted_user(person):
    person.delete()
    eventually(person.all_cancelled)

    order = person.system.post(
        "/orders", {"user_id": person.id, "items": [{"product": "nails", "quantity": 1, "price": 2}]}
    )
    task = person.system.post("/tasks", {"user_id": person.id})
    again = person.system.post(f"/tasks/{person.future}/retry")

    assert (order.status, order.error["code"]) == (400, "user_not_found")
    assert (task.status, task.error["code"], task.fields) == (400, "user_not_found", ["user_id"])
    assert again.status == 409


def test_the_gateway_leads_nobody_to_an_inbox(system):
    assert system.post("/internal/events", []).status == 404
    assert system.post("/api/v1/internal/events", []).status == 404
    assert "/internal/events" not in system.get("/openapi.json").body["paths"]


_KILLED = [
    ("relay",),
    ("users",),
    ("orders",),
    ("tasks",),
    ("orders", "tasks"),
    ("relay", "orders", "tasks", "worker-1", "worker-2"),
    ("postgres",),
]


@pytest.mark.parametrize("names", _KILLED, ids=" ".join)
def test_whatever_is_killed_in_between_everything_is_cancelled_once(person, names):
    system = person.system
    pids = {name: process.pid for name, process in system.processes().items()}
    person.delete()
    for name in names:
        system.kill_pid(pids[name])
    for name in names:
        system.wait_until_replaced(name, pids[name], timeout=60)

    eventually(person.all_cancelled, timeout=60, what="everything is cancelled")
    _cancelled_once(person)


@pytest.mark.parametrize("name", ["relay", "orders", "tasks"])
def test_what_was_away_when_it_happened_acts_when_it_is_back(person, name):
    system = person.system
    system.cli("stop", name)
    try:
        person.delete()
    finally:
        system.cli("start", name)

    eventually(person.all_cancelled, timeout=60, what="everything is cancelled")
    _cancelled_once(person)
