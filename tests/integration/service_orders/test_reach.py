"""What somebody gets of the orders who may see only their own: the truth, restricted to what is theirs."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from service_orders import events, repository
from service_orders.errors import OrderNotFound
from service_orders.schemas import OrderCreate, OrderPage, OrderQuery, OrderUpdate, OrderView
from service_orders.use_cases import Orders
from servicekit.identity.reach import Reach
from servicekit.web.idempotency import RequestKey
from servicekit.wire.errors import Forbidden
from tests.support.postgres import ServiceDatabase

PEOPLE = [uuid4() for _ in range(5)]
ALL = Reach.all()


class Everybody:
    def exists(self, user_id: UUID, token: str = "") -> bool:
        return True


@pytest.fixture
def orders(orders_database: ServiceDatabase) -> Orders:
    """Give the use cases, over some orders of everybody in every status."""
    chance = random.Random(7)
    orders = Orders(orders_database.database, Everybody())
    for number in range(40):
        made = orders.create(wanted(chance.choice(PEOPLE), f"product {number % 3}", number), reach=ALL).view
        for status in chance.choice([(), ("cancelled",), ("in_progress",), ("in_progress", "completed")]):
            orders.update(made.id, OrderUpdate(status=status), reach=ALL)
    return orders


def wanted(user_id: UUID, product: str = "nails", price: int = 1) -> OrderCreate:
    return OrderCreate.model_validate(
        {"user_id": user_id, "items": [{"product": product, "quantity": 1, "price": price}]}
    )


def listed(page: OrderPage) -> list[dict]:
    return json.loads(page.orders.encoded_json)


def everything(orders: Orders) -> list[OrderView]:
    return [orders.get(UUID(one["id"]), reach=ALL) for one in listed(orders.search(OrderQuery(limit=100), reach=ALL))]


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"sort": "-total_amount"},
        {"sort": "created_at", "status": "created"},
        {"product": "PRODUCT 1"},
        {"product": "product", "status": "completed", "sort": "total_amount"},
        {"user_id": str(PEOPLE[0])},
        {"user_id": str(PEOPLE[1]), "status": "cancelled"},
        {"offset": 3},
        {"created_to": "2000-01-01T00:00:00Z"},
    ],
)
def test_lists_their_totals_and_sums_are_those_of_ones_own_orders(orders, query):
    wanted = OrderQuery.model_validate({**query, "offset": 0, "limit": 100})
    truth = listed(orders.search(wanted, reach=ALL))
    for person in PEOPLE:
        reach = Reach.own(person)
        mine = [one for one in truth if one["user_id"] == str(person)]
        page = orders.search(OrderQuery.model_validate({**query, "limit": 3}), reach=reach)
        assert (page.total, page.total_amount) == (len(mine), sum(Decimal(one["total_amount"]) for one in mine))
        seen = listed(page)
        while page.next is not None:
            page = orders.search(
                OrderQuery.model_validate({**query, "offset": 0, "limit": 3, "after": page.next}), reach=reach
            )
            assert page.total == len(mine)
            seen += listed(page)
        assert seen == mine[query.get("offset", 0) :]


def test_of_the_orders_of_others_nothing_is_shown_changed_or_deleted(orders):
    truth = everything(orders)
    for person in PEOPLE:
        reach = Reach.own(person)
        for order in truth:
            if order.user_id == person:
                assert orders.get(order.id, reach=reach) == order
                assert orders.update(order.id, OrderUpdate(status=order.status), reach=reach) == order
                continue
            cancel = OrderUpdate(status="cancelled")
            for deed, *arguments in ((orders.get,), (orders.update, cancel), (orders.delete,)):
                with pytest.raises(OrderNotFound):
                    deed(order.id, *arguments, reach=reach)
    assert everything(orders) == truth
    for order in truth:
        if order.status in ("created", "cancelled"):
            assert orders.delete(order.id, reach=Reach.own(order.user_id)) == order
    assert everything(orders) == [order for order in truth if order.status in ("in_progress", "completed")]


def test_an_order_of_ones_own_names_oneself_and_its_key_is_ones_own_too(orders):
    me, other = PEOPLE[:2]
    key = RequestKey("k", b"same")
    before = everything(orders)
    with pytest.raises(Forbidden) as refused:
        orders.create(wanted(other), key, reach=Reach.own(me))
    assert [detail.field for detail in refused.value.details] == ["user_id"]
    assert everything(orders) == before
    mine = orders.create(wanted(me), key, reach=Reach.own(me))
    assert orders.create(wanted(me), key, reach=Reach.own(me)) == type(mine)(mine.view, replayed=True)
    # The same key in other hands is another.
    made = {orders.create(wanted(me), replace(key, fingerprint=b"other"), reach=ALL).view.id}
    made.add(orders.create(wanted(other), key, reach=Reach.own(other)).view.id)
    assert len(made - {mine.view.id}) == 2


def test_the_statements_themselves_refuse_a_row_beyond_reach(orders, orders_database):
    """Should a use case ever pass on what it found for somebody else."""
    database = orders_database.database
    order = next(one for one in everything(orders) if one.user_id == PEOPLE[0] and one.status == "created")
    row = repository.ROWS.find(database, order.id, reach=ALL)
    theirs = Reach.own(PEOPLE[1])
    assert not repository.ROWS.update(database, row, {"status": "cancelled"}, None, reach=theirs)
    assert not repository.ROWS.delete(database, row, events.deleted(order, order.created_at), reach=theirs)
    values = {**row._asdict(), "id": uuid4(), "items": "[]", "products_key": ""}
    assert repository.add(database, values, events.created(order), None, reach=theirs) is None
    assert orders.get(order.id, reach=ALL) == order
