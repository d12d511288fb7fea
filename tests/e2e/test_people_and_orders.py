"""Users and orders through the gateway, word for word as people use them."""

from __future__ import annotations

import uuid

import pytest

from tests.support.waiting import eventually


def test_a_user_is_created_once(system):
    body = {"email": f"{uuid.uuid4().hex}@example.com", "name": "Белов Ярослав"}

    first = system.post("/users", body)
    assert first.status == 201
    assert first.data["email"] == body["email"]
    assert first.data["name"] == "Белов Ярослав"
    assert first.data["roles"] == ["user"]
    assert first.headers["Location"] == f"/users/{first.data['id']}"

    again = system.post("/users", body)
    assert again.status == 409
    assert again.error["code"] == "email_taken"
    assert again.fields == ["email"]


def test_an_order_has_an_exact_total(system, user):
    # 10 x 52.00 = 520.00
    order = system.post(
        "/orders", {"user_id": user["id"], "items": [{"product": "Чокопай", "quantity": 10, "price": 52.00}]}
    )
    assert order.status == 201
    assert order.data["status"] == "created"
    assert order.data["total_amount"] == "520.00"
    assert order.data["items"] == [{"product": "Чокопай", "quantity": 10, "price": "52.00"}]


def test_details_show_the_user_and_the_orders(system, user, order):
    details = system.get(f"/users/{user['id']}/details")

    assert details.status == 200
    assert details.data == {"user": user, "orders": [order], "orders_total": 1, "partial": False}


def test_details_of_nobody_are_a_404(system):
    details = system.get(f"/users/{uuid.uuid4()}/details")

    assert details.status == 404
    assert details.error["code"] == "user_not_found"


@pytest.mark.parametrize("parameter", ["userId", "user_id"])
def test_orders_are_listed_by_user(system, user, order, parameter):
    page = system.get(f"/orders?{parameter}={user['id']}")

    assert page.status == 200
    assert page.data == {
        "orders": [order],
        "total": 1,
        "total_is_exact": True,
        "total_amount": order["total_amount"],
        "limit": 50,
        "offset": 0,
        "next": None,
    }


def test_an_order_goes_through_its_steps_and_not_otherwise(system, order):
    path = f"/orders/{order['id']}"
    assert system.put(path, {"status": "completed"}).error["code"] == "order_state_conflict"
    assert system.put(path, {"status": "in_progress"}).data["status"] == "in_progress"
    assert system.delete(path).status == 409
    assert system.put(path, {"status": "cancelled"}).data["status"] == "cancelled"
    assert system.delete(path).data["id"] == order["id"]
    assert system.get(path).error["code"] == "order_not_found"


def test_people_of_one_site_know_each_others_names_for_as_long_as_they_work_there(system, user):
    other = system.post("/users", {"email": f"{uuid.uuid4().hex}@example.com", "name": "Ann"}).data
    manager = {"email": user["email"].upper(), "position": "site manager"}
    wanted = {"key": f"S{uuid.uuid4().hex[:8].upper()}", "name": "North", "time_zone": "Europe/Moscow"}
    site = system.post("/sites", {**wanted, "manager": manager})
    assert site.status == 201, site.body
    members = f"/sites/{site.data['id']}/members"
    assert system.post(members, {"user_id": other["id"], "role": "engineer"}).status == 201

    def sees() -> object:
        return system.get(f"/users/{user['id']}", headers={"X-Act-As": other["id"]}).body.get("data")

    eventually(lambda: sees() == {"id": user["id"], "name": user["name"]}, what="users hears who works there")
    assert system.get(f"/users/{user['id']}/details", headers={"X-Act-As": other["id"]}).data["orders"] == []
    assert system.delete(f"{members}/{other['id']}").status == 200
    eventually(lambda: sees() is None, what="users hears who left")


def test_an_order_of_nobody_is_refused(system):
    order = system.post(
        "/orders", {"user_id": str(uuid.uuid4()), "items": [{"product": "nails", "quantity": 1, "price": 1}]}
    )

    assert order.status == 400
    assert order.error["code"] == "user_not_found"
    assert order.fields == ["user_id"]


def test_a_user_is_changed_and_deleted(system, user):
    path = f"/users/{user['id']}"
    changed = system.put(path, {"name": "渡辺 直美"})
    assert changed.data["name"] == "渡辺 直美"
    assert changed.data["email"] == user["email"]

    assert system.delete(path).data["name"] == "渡辺 直美"
    gone = system.get(path)
    assert gone.status == 404
    assert gone.error["code"] == "user_not_found"


def test_the_alias_answers_the_same(system, user):
    assert system.get(f"/api/v1/users/{user['id']}").data == user


def test_every_answer_carries_its_request_id(system):
    assert system.get("/users", headers={"X-Request-ID": "site-7/2026"}).headers["X-Request-ID"] == "site-7/2026"
    made = system.get("/users", headers={"X-Request-ID": "<script>"}).headers["X-Request-ID"]
    assert made
    assert "<" not in made
    assert system.get("/nothing").headers["X-Request-ID"]


@pytest.mark.parametrize(
    "path", ["/health", "/status", "/livez", "/readyz", "/users", "/orders", "/tasks", "/task-types"]
)
def test_the_service_pages_and_lists_answer(system, path):
    answer = system.get(path)

    assert answer.status == 200
    assert answer.body["success"] is True


def test_an_unknown_address_and_a_wrong_method_are_enveloped(system):
    assert (system.get("/nothing").status, system.get("/nothing").error["code"]) == (404, "not_found")
    wrong = system.request("PATCH", "/users")
    assert (wrong.status, wrong.error["code"]) == (405, "method_not_allowed")
    assert {"GET", "POST"} <= {method.strip() for method in wrong.headers["Allow"].split(",")}
