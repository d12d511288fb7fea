"""What users tells the others."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from service_users.app import create_app
from service_users.events import CATALOGUE
from service_users.settings import UsersSettings
from tests.support.events import TOKEN, send, user_deleted


@pytest.fixture
def client(users_database):
    return create_app(UsersSettings(users_database_url=users_database.url, internal_token=TOKEN)).test_client()


@pytest.fixture
def told(users_database):
    def read() -> list[tuple]:
        with users_database.database.transaction() as session:
            return session.execute(text("SELECT type, subject, data FROM outbox ORDER BY position")).all()

    return read


def test_every_change_of_a_user_is_told_in_its_order_and_no_password_with_it(client, told):
    created = client.post(
        "/users", json={"email": "anna@example.com", "name": "Белова Анна", "password": "a long secret"}
    )
    path = f"/users/{created.json['data']['id']}"
    client.put(path, json={"name": "Anna", "roles": ["auditor"]})
    client.put(path, json={})
    client.delete(path)

    events = told()
    assert [row[0] for row in events] == ["user.created", "user.updated", "user.deleted"]
    assert {str(row[1]) for row in events} == {created.json["data"]["id"]}
    assert events[0][2] == created.json["data"]
    before, after = created.json["data"]["roles"], ["auditor"]
    assert [events[1][2][name] for name in ("name", "roles", "previous_roles")] == ["Anna", after, before]
    assert events[2][2] == {"id": created.json["data"]["id"]}
    for type_, _, data in events:
        assert set(data) == set(CATALOGUE[type_].model_fields)


def test_a_refused_change_tells_nothing(client, told):
    for _ in range(2):
        client.post("/users", json={"email": "anna@example.com", "name": "Anna"})

    assert [row[0] for row in told()] == ["user.created"]


def test_events_of_others_are_acknowledged_and_leave_nothing(client, told):
    event = user_deleted("018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f", type="order.created")

    answer = send(client, event)

    assert answer.json["data"] == {"processed": 0, "duplicates": 0, "ignored": 1}
    assert told() == []
