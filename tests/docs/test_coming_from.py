"""What the five other programs were asked to do can be asked for here, as docs/coming_from.md says."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service_orders.schemas import OrderView
from service_tasks.schemas.tasks import TaskView
from service_users.schemas import UserView
from tests.support.markdown import CHECKOUT, Document
from tests.support.system import RunningSystem

COMING_FROM = Document(CHECKOUT / "docs" / "coming_from.md")
FIELDS = {*TaskView.model_fields, *UserView.model_fields, *OrderView.model_fields}

pytestmark = pytest.mark.timeout(240)


def _tomorrow() -> str:
    return (datetime.now(UTC) + timedelta(days=1)).isoformat().replace("+00:00", "Z")


def _user(system: RunningSystem, name: str) -> dict[str, Any]:
    answer = system.post("/users", {"email": f"{uuid.uuid4().hex}@example.com", "name": name})
    assert answer.status == 201
    data: dict[str, Any] = answer.data
    return data


def test_workmate(running: RunningSystem) -> None:
    user = _user(running, "Иван Иванов")
    assert running.get(f"/users/{user['id']}").data["name"] == "Иван Иванов"

    created = running.post("/tasks", {"title": "Обработка данных", "user_id": user["id"]})
    assert created.status == 201

    task = running.wait_for_task(created.data["id"], "completed")
    assert (task["title"], task["user_id"], task["error"]) == ("Обработка данных", user["id"], None)
    assert task["completed_at"] >= task["created_at"]
    assert [one["id"] for one in running.get(f"/users/{user['id']}/tasks").data["tasks"]] == [task["id"]]
    assert running.get(f"/tasks?user_id={user['id']}").data["total"] == 1


def test_at_api(running: RunningSystem) -> None:
    wanted = {
        "execute_at": _tomorrow(),
        "task_type": "send_email",
        "payload": {"to": "user@example.com", "subject": "Напоминание"},
        "max_attempts": 3,
    }
    created = running.post("/api/v1/tasks", wanted)
    assert created.status == 201
    assert {name: created.data[name] for name in wanted} == wanted
    assert (created.data["status"], created.data["attempts"]) == ("pending", 0)
    path = f"/api/v1/tasks/{created.data['id']}"

    assert running.get(path).data == created.data
    page = running.get("/api/v1/tasks?status=pending&task_type=send_email&limit=10").data
    assert (page["tasks"], page["total"]) == ([created.data], 1)
    assert running.get("/api/v1/tasks?limit=20&offset=20").status == 200
    assert running.delete(path).data["status"] == "cancelled"
    assert running.delete(path).status == 404
    assert running.post("/api/v1/tasks", {**wanted, "execute_at": "2020-01-01T00:00:00Z"}).status == 400
    assert running.get("/api/v1/tasks/1").status == 400
    assert running.get(f"/api/v1/tasks/{uuid.uuid4()}").status == 404


def test_task_manager(running: RunningSystem) -> None:
    created = running.request("POST", "/tasks")
    assert created.status == 201

    task = running.get(f"/tasks/{created.data['id']}").data
    assert {"id", "status", "created_at", "updated_at"} <= task.keys()
    for word in ("New", "In%20Progress", "Completed", "Failed"):
        assert isinstance(running.get(f"/tasks?status={word}").data["tasks"], list)
    running.wait_for_task(task["id"], "completed")
    assert task["id"] in {one["id"] for one in running.get("/tasks?status=Completed").data["tasks"]}


def test_go_task_api(running: RunningSystem) -> None:
    path = f"/tasks/{running.post('/tasks', {'task_type': 'io', 'payload': {'seconds': 60}}).data['id']}"

    assert {"status", "created_at", "duration"} <= running.get(f"{path}/status").data.keys()
    assert running.get(f"{path}/result").error["code"] == "task_not_finished"
    assert running.delete(f"{path}?purge=true").status == 200
    assert running.get(path).error["code"] == "task_not_found"


def test_the_gateway_with_users_and_orders(running: RunningSystem) -> None:
    user = _user(running, "Белов Ярослав")
    body = {"user_id": user["id"], "items": [{"product": "Чокопай", "quantity": 10, "price": 52.00}]}
    order = running.post("/orders", body)
    assert (order.status, order.data["status"], order.data["total_amount"]) == (201, "created", "520.00")

    assert user["roles"] == ["user"]
    assert "password_hash" not in user
    assert running.get(f"/orders?userId={user['id']}").data["orders"] == [order.data]
    details = running.get(f"/users/{user['id']}/details").data
    assert (details["user"], details["orders"]) == (user, [order.data])
    assert running.put(f"/orders/{order.data['id']}", {"status": "cancelled"}).data["status"] == "cancelled"
    assert running.delete(f"/orders/{order.data['id']}").status == 200
    assert running.put(f"/users/{user['id']}", {"name": "Белов Я."}).data["name"] == "Белов Я."
    assert running.delete(f"/users/{user['id']}").status == 200
    for page in ("/users", "/orders", "/health", "/status"):
        assert running.get(page).body["success"] is True


@pytest.mark.parametrize(
    "heading",
    ["WorkMate", "AT API", "Task Manager with RabbitMQ", "Go Task API", "The gateway with users and orders"],
)
def test_every_field_a_table_promises_exists(heading: str) -> None:
    promised = set()
    in_fields = False
    for line in COMING_FROM.prose[COMING_FROM.prose.index(f"## {heading}") + 1 :]:
        if line.startswith("## "):
            break
        if line.startswith("| "):
            cells = line.strip("| ").split(" | ")
            if cells[-1] == "here" or cells[1].startswith(("here", "field here")):
                in_fields = "field" in cells[0]
            elif in_fields and (found := re.match(r"`([a-z_]+)`", cells[1])):
                promised.add(found[1])
        else:
            in_fields = in_fields and bool(line)

    assert promised
    assert promised <= FIELDS | {"data", "limit", "offset", "password", "product", "quantity", "price"}
