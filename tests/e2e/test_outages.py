"""One part at a time goes away: the others go on, people are told, and it heals by itself."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.waiting import eventually

DEADLINE = 5.0 + 0.5  # the gateway's total limit, in seconds, and a little for the client's own side


def _circuit(system, name):
    health = system.get("/health")
    assert health.status == 200
    return health.data["upstreams"][name]["state"], health.data["status"]


def _heals(system, path):
    eventually(lambda: system.get(path).status == 200, timeout=30, what=f"{path} answers again")


@pytest.fixture
def stopped(system):
    """Stop services by name; start them again afterwards."""
    names: list[str] = []

    def stop(name):
        system.cli("stop", name)
        names.append(name)

    yield stop
    for name in names:
        system.cli("start", name)
        _heals(system, f"/{name}")


def test_users_down_opens_the_circuit_and_leaves_the_rest_alone(system, user, order, stopped):
    stopped("users")

    first = system.get("/users")
    assert first.status == 503
    assert first.error["code"] == "users_unavailable"
    assert first.seconds < DEADLINE

    def opened():
        answer = system.get("/users")
        assert answer.status == 503
        return answer if answer.error["code"] == "circuit_open" else None

    answer = eventually(opened, what="the circuit opens")
    assert int(answer.headers["Retry-After"]) >= 1
    assert _circuit(system, "users")[0] in {"open", "half_open"}
    assert _circuit(system, "users")[1] == "degraded"

    assert system.get(f"/orders/{order['id']}").data == order
    assert system.get("/tasks").status == 200
    assert system.get(f"/users/{user['id']}/details").status == 503

    before = system.get("/orders").data["total"]
    refused = system.post(
        "/orders", {"user_id": user["id"], "items": [{"product": "nails", "quantity": 1, "price": 1}]}
    )
    assert refused.status == 503
    assert refused.error["code"] == "users_unavailable"
    assert system.get("/orders").data["total"] == before

    system.cli("start", "users")
    _heals(system, f"/users/{user['id']}")
    eventually(lambda: system.get("/users") and _circuit(system, "users") == ("closed", "healthy"), timeout=30)


def test_orders_down_leaves_users_and_gives_partial_details(system, user, stopped):
    stopped("orders")

    eventually(lambda: system.get("/orders").error["code"] == "circuit_open", what="the circuit opens")
    details = system.get(f"/users/{user['id']}/details")

    assert details.status == 200
    assert details.data["user"] == user
    assert details.data["orders"] is None
    assert details.data["partial"] is True
    assert details.data["missing"]["orders"]["code"] in {"circuit_open", "orders_unavailable"}
    assert system.get("/users").status == 200


def test_a_killed_service_comes_back_however_often(system, user):
    for _ in range(3):
        system.wait_until_replaced("gateway", system.kill("gateway"))
        eventually(lambda: _answers(system, "/readyz"), timeout=30)
    eventually(lambda: _answers(system, "/users"), timeout=30)
    assert system.get(f"/users/{user['id']}").data == user


def _answers(system, path):
    try:
        return system.get(path).status == 200
    except OSError:
        return False


def test_a_killed_worker_loses_no_task(system):
    tasks = [system.post("/tasks", {"task_type": "io", "payload": {"seconds": 2}}).data["id"] for _ in range(20)]
    for task_id in tasks:
        system.wait_for_task(task_id, "processing", "completed")

    workers = [name for name in system.processes() if name.startswith("worker")]
    for name in workers:
        system.wait_until_replaced(name, system.kill(name))

    for task_id in tasks:
        assert system.wait_for_task(task_id, "completed", timeout=60)["result"] is not None


def test_a_killed_postgres_comes_back_and_nothing_answered_201_is_lost_nor_any_step_taken_twice(system, user):
    wanted = {"key": "KILLED", "name": "Yard", "time_zone": "UTC", "manager": {"user_id": user["id"]}}
    site = system.post("/sites", wanted).data["id"]
    acting = {"X-Act-As": user["id"]}
    item = system.post(f"/sites/{site}/work-items", {"title": "Crack"}, headers=acting).data["id"]
    steps_taken = []

    def step(number):
        body = {"step": "assign", "organisation": f"Nr {number}", "op_id": str(uuid.uuid4())}

        def taken():
            try:
                answer = system.post(f"/work-items/{item}/steps", body, headers=acting | {"If-Match": "*"})
            except OSError:
                return False
            return answer.status == 200

        eventually(taken, timeout=60, what=f"step {number} is answered")
        steps_taken.append(number)

    def create(number):
        answer = system.post("/users", {"email": f"{uuid.uuid4().hex}@example.com", "name": f"Nr {number}"})
        return answer.data if answer.status == 201 else None

    running = [system.post("/tasks", {"task_type": "io", "payload": {"seconds": 3}}).data["id"] for _ in range(10)]
    for task_id in running:
        system.wait_for_task(task_id, "processing", "completed")

    with ThreadPoolExecutor(4) as pool, ThreadPoolExecutor(4) as site_pool:
        stepping = site_pool.map(step, range(40))
        eventually(lambda: len(steps_taken) >= 4, what="steps are taken")
        system.kill("sites")
        pid = system.kill("postgres")
        created = [user for user in pool.map(create, range(40)) if user]
        system.wait_until_replaced("postgres", pid, timeout=60)
        for path in ("/users", "/orders", "/tasks", "/sites"):
            _heals(system, path)
        assert len([*stepping]) == 40

    told = system.get(f"/work-items/{item}/history?limit=100", headers=acting).data["history"]
    assert sorted(one["organisation"] for one in told[1:]) == sorted(f"Nr {number}" for number in range(40))
    assert [one["version"] for one in told] == [*range(1, 42)]

    for user in created:
        assert system.get(f"/users/{user['id']}").data == user
    for task_id in running:
        assert system.wait_for_task(task_id, "completed", timeout=60)["result"] is not None
