"""The largest requests that are allowed, all at once, take no more memory than the container has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from servicekit.events.cloudevents import BATCH_MEDIA_TYPE, PATH, write_batch
from tests.support.events import TOKEN, user_deleted
from tests.support.memory import Contained, contained, limit_of, peak
from tests.support.postgres import ServiceDatabase
from tests.support.upstream import ScriptedUpstream, good

USER = "0190a8b0-0000-7000-8000-000000000001"
#: A product's name as large as one may be, in bytes and in memory.
LONGEST = "😀" * 200


@pytest.fixture
def service(orders_database: ServiceDatabase, tmp_path: Path) -> Iterator[Contained]:
    with ScriptedUpstream() as users:
        users.script(good({"id": USER}))
        settings = {"ORDERS_DATABASE_URL": orders_database.url, "USERS_URL": users.url, "INTERNAL_TOKEN": TOKEN}
        with contained("service_orders", tmp_path / "log", **settings) as service:
            yield service


def order(product: str) -> bytes:
    items = [{"product": product, "quantity": 10, "price": 1.25}] * 200
    return json.dumps({"user_id": USER, "items": items}, ensure_ascii=False).encode()


def fill(service: Contained, database: ServiceDatabase, product: str, count: int = 100) -> None:
    """Store so many equal orders of 200 items."""
    assert service.post("/orders", order(product))().status == 201
    with database.database.transaction() as session:
        session.connection().exec_driver_sql(
            "INSERT INTO orders SELECT gen_random_uuid(), user_id, items, status, total_amount, created_at, updated_at,"
            " cancel_reason, products_key FROM orders, generate_series(2, %s)",
            (count,),
        )


@pytest.mark.parametrize("product", [LONGEST, "x"], ids=["long names", "short names"])
def test_lists_of_the_largest_orders_and_the_worst_bodies_stay_below_the_limit(
    service: Contained, orders_database: ServiceDatabase, product: str
) -> None:
    fill(service, orders_database, product)
    lists = [service.get("/orders?limit=100")] * 8
    assert service.at_once(*lists)[200] >= 1
    # As few bytes as values can have, and as many as a body can.
    nested = service.post("/orders", b'{"items":[' + b"[]," * 340_000 + b"[]]}")
    assert service.at_once(*[nested] * 8) == {413: 8}
    service.at_once(*[service.post("/orders", order(product))] * 8, *lists)
    assert peak(service.process.pid) < limit_of("service_orders")
    assert service.at_once(service.get("/orders?limit=1")) == {200: 1}


def test_a_page_of_large_orders_ends_early_and_tells_how_many_it_shows(
    service: Contained, orders_database: ServiceDatabase
) -> None:
    fill(service, orders_database, LONGEST, 20)
    seen: list[str] = []
    limits: list[int] = []
    while len(seen) < 20:
        page: dict[str, Any] = service.client.get(f"/orders?limit=15&offset={len(seen)}").json["data"]
        assert page["total"] == 20
        assert len(page["orders"]) == min(page["limit"], 20 - len(seen))
        seen += [order["id"] for order in page["orders"]]
        limits.append(page["limit"])
    assert len(set(seen)) == 20
    by_place: list[str] = []
    after = ""
    while after is not None:
        page = service.client.get(f"/orders?limit=15{after and '&after='}{after}").json["data"]
        by_place += [order["id"] for order in page["orders"]]
        after = page["next"]
    assert by_place == seen
    # Six of 170 kB are a megabyte; what is left in the end fits.
    assert limits == [6, 6, 6, 15]


def test_the_deletion_of_a_user_with_many_large_orders_stays_below_the_limit(
    service: Contained, orders_database: ServiceDatabase
) -> None:
    fill(service, orders_database, LONGEST, 1100)
    deleted = service.client.request(
        "POST",
        PATH,
        write_batch([user_deleted(UUID(USER))], "users"),
        fields=(("Content-Type", BATCH_MEDIA_TYPE), ("Authorization", f"Bearer {TOKEN}")),
    )
    assert (deleted.status, deleted.json["data"]["processed"]) == (200, 1)
    counted = service.client.get("/orders?status=cancelled&limit=1").json["data"]["total"]
    assert counted == 1100
    with orders_database.database.transaction() as session:
        steps = session.execute(text("SELECT count(DISTINCT subject) FROM outbox WHERE type = 'order.status_changed'"))
        assert steps.scalar_one() == 1100
    assert peak(service.process.pid) < limit_of("service_orders")
