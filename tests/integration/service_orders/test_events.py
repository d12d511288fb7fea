"""What orders tells the others, and what it does about a deleted user."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from service_orders.app import create_app
from service_orders.domain import OrderStatus
from service_orders.events import CATALOGUE
from service_orders.settings import OrdersSettings
from servicekit.events.cloudevents import BATCH_MEDIA_TYPE, PATH, Event, write_event
from servicekit.events.relay import REMEMBER_DAYS
from servicekit.events.relay_store import MEMORIES, RelayStore
from tests.support.events import TOKEN, send, user_deleted
from tests.support.upstream import ScriptedUpstream, Wait, good
from tests.support.waiting import eventually

ANNA = UUID("018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f")
BORIS = UUID("018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e60")
STEPS = {
    "created": [],
    "in_progress": ["in_progress"],
    "completed": ["in_progress", "completed"],
    "cancelled": ["cancelled"],
}
BROKEN = json.dumps([write_event(user_deleted(ANNA), "users")]).encode().replace(str(ANNA).encode(), b"x")


@pytest.fixture
def users():
    with ScriptedUpstream() as upstream:
        upstream.script(good({"id": str(ANNA)}))
        yield upstream


@pytest.fixture
def make_client(orders_database, users):
    def make(**settings) -> FlaskClient:
        given = {"orders_database_url": orders_database.url, "users_url": users.url, "internal_token": TOKEN} | settings
        return create_app(OrdersSettings(**given)).test_client()

    return make


@pytest.fixture
def client(make_client) -> FlaskClient:
    return make_client()


@pytest.fixture
def sql(orders_database):
    def run(statement: str, **parameters):
        with orders_database.database.transaction() as session:
            return session.execute(text(statement), parameters).all()

    return run


def create(client: FlaskClient, user_id: UUID = ANNA, status: str = "created") -> str:
    body = {"user_id": str(user_id), "items": [{"product": "nails", "quantity": 1, "price": 2}]}
    answer = client.post("/orders", json=body)
    assert answer.status_code == 201, answer.json
    order_id: str = answer.json["data"]["id"]
    for step in STEPS[status]:
        assert client.put(f"/orders/{order_id}", json={"status": step}).status_code == 200
    return order_id


def show(client: FlaskClient, order_id: str) -> dict:
    return client.get(f"/orders/{order_id}").json["data"]


def test_every_change_of_an_order_is_an_event_in_its_order(client, sql):
    order_id = create(client)
    client.put(f"/orders/{order_id}", json={"items": [{"product": "nails", "quantity": 2, "price": 2}]})
    client.put(f"/orders/{order_id}", json={"status": "created"})
    client.put(f"/orders/{order_id}", json={"status": "cancelled"})
    client.delete(f"/orders/{order_id}")

    written = sql("SELECT type, subject, data FROM outbox ORDER BY position")
    assert [row[0] for row in written] == ["order.created", "order.status_changed", "order.deleted"]
    assert {str(row[1]) for row in written} == {order_id}
    assert (written[1][2]["old_status"], written[1][2]["status"], written[1][2]["cancel_reason"]) == (
        "created",
        "cancelled",
        None,
    )
    assert written[2][2]["total_amount"] == "4.00"
    for type_, _, data in written:
        assert set(data) == set(CATALOGUE[type_].model_fields)


def test_the_backlog_of_events_is_shown_whether_or_not_a_relay_has_taken_them_up(client, orders_database):
    create(client)
    create(client, BORIS)
    store = RelayStore(orders_database.database)

    fresh = client.get("/outbox/orders").json["data"]
    store.spread({"tasks": None})
    taken = client.get("/outbox/orders").json["data"]
    (first, second) = store.waiting("tasks", 10)
    store.acknowledge("tasks", [first.position])
    store.hold("tasks", second.position, "no such order", final=False)

    assert (fresh["taken_up_by_none"], fresh["oldest_seconds"] > 0, fresh["destinations"]) == (2, True, [])
    (waiting,) = taken["destinations"]
    assert (taken["taken_up_by_none"], waiting["destination"], waiting["waiting"]) == (0, "tasks", 2)
    (left,) = client.get("/outbox/orders").json["data"]["destinations"]
    assert (left["waiting"], left["given_up"], left["oldest_seconds"] > 0) == (1, 0, True)
    assert store.backlog(most=0) == {}


def test_a_refused_change_tells_nothing(client, sql):
    order_id = create(client)
    assert client.put(f"/orders/{order_id}", json={"status": "completed"}).status_code == 409

    assert [row[0] for row in sql("SELECT type FROM outbox")] == ["order.created"]


def test_the_open_orders_of_a_deleted_user_are_cancelled_with_the_reason_and_the_others_left_alone(client, sql):
    orders = {status: create(client, status=status) for status in STEPS}
    others = create(client, BORIS)
    before = {status: show(client, order_id) for status, order_id in orders.items()}

    answer = send(client, user_deleted(ANNA))

    assert answer.json["data"] == {"processed": 1, "duplicates": 0, "ignored": 0}
    after = {status: show(client, order_id) for status, order_id in orders.items()}
    for status in ("created", "in_progress"):
        assert (after[status]["status"], after[status]["cancel_reason"]) == ("cancelled", "the user was deleted")
    for status in ("completed", "cancelled"):
        assert after[status] == before[status]
    assert show(client, others)["status"] == "created"
    written = sql("SELECT subject, data FROM outbox WHERE data ->> 'cancel_reason' IS NOT NULL")
    assert {str(row[0]) for row in written} == {orders["created"], orders["in_progress"]}


def test_an_event_that_comes_again_changes_nothing(client, sql):
    order_id = create(client)
    event = user_deleted(ANNA)
    assert send(client, event, event).json["data"] == {"processed": 1, "duplicates": 1, "ignored": 0}
    before, written = show(client, order_id), sql("SELECT count(*) FROM outbox")

    again = send(client, event)

    assert again.json["data"] == {"processed": 0, "duplicates": 1, "ignored": 0}
    assert show(client, order_id) == before
    assert sql("SELECT count(*) FROM outbox") == written


def test_the_same_batch_many_times_at_once_counts_once(client, sql):
    ids = [uuid4() for _ in range(20)]
    for user_id in ids:
        create(client, user_id)
    events = [user_deleted(user_id) for user_id in ids]
    answers: list[dict] = []

    def deliver(order: list[Event]) -> None:
        # As the relay does with events for which something was locked too long.
        answers.append(eventually(lambda: send(client, *order).json.get("data"), timeout=20))

    orders = (events, events[::-1], events, events[::-1])
    threads = [threading.Thread(target=deliver, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(answer["processed"] for answer in answers) == [0, 0, 0, 20]
    assert sql("SELECT count(*) FROM outbox WHERE type = 'order.status_changed'") == [(20,)]


def test_events_of_no_interest_are_acknowledged_and_leave_nothing(client, sql):
    answer = send(client, user_deleted(ANNA, type="user.updated"), user_deleted(ANNA, type="crane.moved"))

    assert answer.json["data"] == {"processed": 0, "duplicates": 0, "ignored": 2}
    assert sql("SELECT count(*) FROM processed_events") == [(0,)]


def test_a_batch_with_one_event_that_cannot_be_read_is_refused_whole_naming_the_field(client, sql):
    order_id = create(client)
    broken = user_deleted(BORIS, data={"id": 7})

    answer = send(client, user_deleted(ANNA), broken)

    assert answer.status_code == 400
    assert [detail["field"] for detail in answer.json["error"]["details"]] == [f"{broken.id}.data.id"]
    assert show(client, order_id)["status"] == "created"
    assert sql("SELECT count(*) FROM processed_events") == [(0,)]


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [(None, 401, "unauthorized"), ("wrong", 401, "unauthorized"), (TOKEN + "x", 401, "unauthorized")],
)
def test_who_does_not_know_the_token_is_refused_before_anything_is_read(client, token, status, code):
    answer = client.post(PATH, data=b"{", headers={} if token is None else {"Authorization": f"Bearer {token}"})

    assert (answer.status_code, answer.json["error"]["code"]) == (status, code)


def test_without_a_token_configured_no_events_are_taken(make_client):
    answer = send(make_client(internal_token=None), user_deleted(ANNA))

    assert (answer.status_code, answer.json["error"]["code"]) == (403, "forbidden")


def test_the_token_may_stand_in_a_file(make_client, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    client = make_client(internal_token=None, internal_token_file=file)

    assert send(client, user_deleted(ANNA)).status_code == 200


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"[]", BATCH_MEDIA_TYPE, 400),
        (b"{}", BATCH_MEDIA_TYPE, 400),
        (b"[" * 40, BATCH_MEDIA_TYPE, 400),
        (b"[" + b" " * 1024 * 1024 + b"]", BATCH_MEDIA_TYPE, 413),
        (BROKEN, BATCH_MEDIA_TYPE, 400),
        (b"[]", "text/plain", 415),
    ],
    ids=["none", "an object", "too deep", "too large", "no id", "no JSON"],
)  # fmt: skip
def test_bad_bodies_are_refused_in_the_envelope(client, body, media_type, status):
    answer = client.post(PATH, data=body, content_type=media_type, headers={"Authorization": f"Bearer {TOKEN}"})

    assert answer.status_code == status
    assert answer.json["success"] is False


def test_the_inbox_stands_in_no_public_document(client):
    assert PATH not in client.get("/openapi.json").json["paths"]


def test_no_order_is_made_for_a_deleted_user_even_while_users_still_knows_them(client):
    send(client, user_deleted(ANNA))

    answer = client.post(
        "/orders", json={"user_id": str(ANNA), "items": [{"product": "nails", "quantity": 1, "price": 2}]}
    )

    assert (answer.status_code, answer.json["error"]["code"]) == (400, "user_not_found")


def test_an_order_that_was_under_way_while_its_user_was_deleted_does_not_stay_open(make_client, users, sql):
    asked = threading.Event()
    users.script(Wait(asked), good({"id": str(ANNA)}))
    client = make_client()
    answers: list[int] = []

    def order() -> None:
        body = {"user_id": str(ANNA), "items": [{"product": "nails", "quantity": 1, "price": 2}]}
        answers.append(client.post("/orders", json=body).status_code)

    thread = threading.Thread(target=order)
    thread.start()
    users.wait_for(1)
    assert send(make_client(), user_deleted(ANNA)).status_code == 200
    asked.set()
    thread.join(20)

    assert answers == [400]
    assert sql("SELECT count(*) FROM orders") == [(0,)]


def test_creating_and_deleting_at_the_same_moment_leaves_no_open_order(make_client, sql):
    ids = [uuid4() for _ in range(30)]
    clients = [make_client() for _ in range(3)]
    start = threading.Barrier(3)

    def patiently(expected: set[int], locked: int, ask: Callable[[], int]) -> None:
        """Ask again, as clients and the relay do, where the other had locked the user for too long."""

        def look() -> bool:
            status = ask()
            assert status in expected
            return status != locked

        eventually(look, timeout=20, what="a lock")

    def orders(client: FlaskClient) -> None:
        for user_id in ids:
            start.wait(20)
            body = {"user_id": str(user_id), "items": [{"product": "nails", "quantity": 1, "price": 2}]}
            patiently({201, 400, 503}, 503, lambda body=body: client.post("/orders", json=body).status_code)

    threads = [threading.Thread(target=orders, args=(client,)) for client in clients[:2]]
    for thread in threads:
        thread.start()
    for user_id in ids:
        start.wait(20)
        event = user_deleted(user_id)
        patiently({200, 500}, 500, lambda event=event: send(clients[2], event).status_code)
    for thread in threads:
        thread.join(30)

    eventually(lambda: sql("SELECT count(*) FROM tombstones") == [(30,)])
    assert sql("SELECT count(*) FROM orders WHERE status <> 'cancelled'") == [(0,)]


def test_all_the_words_of_the_catalogue_are_statuses_of_orders():
    assert set(STEPS) == {status.value for status in OrderStatus}


def test_what_was_remembered_for_longer_than_its_time_is_removed_by_the_relay(orders_database, sql):
    store = RelayStore(orders_database.database)
    with orders_database.database.transaction() as session:
        for days in (29, 31):
            moment = {"id": uuid4(), "days": days}
            session.execute(
                text(
                    "INSERT INTO processed_events (id, type, processed_at) "
                    "VALUES (:id, 'user.deleted', now() - make_interval(days => :days))"
                ),
                moment,
            )
            session.execute(
                text(
                    "INSERT INTO idempotency_keys (key, fingerprint, made, created_at) "
                    "VALUES (CAST(:days AS text), '', :id, now() - make_interval(days => :days))"
                ),
                moment,
            )

    memories = store.tables() & MEMORIES.keys()
    assert {memory: store.forget(memory, REMEMBER_DAYS * 86_400) for memory in memories} == {
        "idempotency_keys": 1,
        "processed_events": 1,
    }
    assert sql("SELECT key FROM idempotency_keys") == [("29",)]
    assert sql("SELECT count(*) FROM processed_events") == [(1,)]
