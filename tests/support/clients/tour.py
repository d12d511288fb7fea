"""Walks README's tour with the generated Python client: `python tour.py URL all|no-orders`."""

from __future__ import annotations

import datetime
import sys
import time
from http import HTTPStatus
from uuid import UUID

from siteworks import Client
from siteworks.api.gateway import health
from siteworks.api.orders import create_order, get_order, list_orders, patch_order, update_order
from siteworks.api.tasks import (
    cancel_task,
    create_task,
    get_task,
    get_task_result,
    list_tasks,
    list_user_tasks,
    watch_task,
)
from siteworks.api.users import create_user, list_users, show_user_details
from siteworks.models import (
    Error,
    HealthViewStatus,
    Item,
    ListTasksStatus,
    OrderCreate,
    OrderUpdate,
    OrderUpdateStatus,
    OrderViewStatus,
    Status,
    TaskCreate,
    UserCreate,
)
from siteworks.types import Response

ADDRESS = "python@example.com"
PATIENCE_SECONDS = 30


def refused(answer: Response, status: HTTPStatus) -> Error:
    assert answer.status_code == status, answer
    assert isinstance(answer.parsed, Error)
    return answer.parsed


def user_with_the_address(client: Client) -> UUID:
    page = list_users.sync(client=client, email=ADDRESS).data
    assert page.total == 1
    return page.users[0].id


def walk(client: Client) -> None:
    made = create_user.sync_detailed(client=client, body=UserCreate(email=ADDRESS, name="Белов Ярослав"))
    user = made.parsed.data
    assert (made.status_code, user.name, user.roles) == (201, "Белов Ярослав", ["user"])
    again = create_user.sync_detailed(client=client, body=UserCreate(email=ADDRESS.upper(), name="Somebody else"))
    taken = refused(again, HTTPStatus.CONFLICT).error
    assert (taken.code, taken.details[0].field) == ("email_taken", "email")
    assert user_with_the_address(client) == user.id

    pie = Item(product="Чокопай", quantity=10, price=52.00)
    order = create_order.sync(client=client, body=OrderCreate(user_id=user.id, items=[pie])).data
    assert (order.total_amount, order.status, order.items[0].price) == ("520.00", OrderViewStatus.CREATED, "52.00")
    details = show_user_details.sync(id=user.id, client=client).data
    assert (details.user.id, details.orders[0].id, details.partial) == (user.id, order.id, False)
    strange = Item(product="Чокопай", quantity="10", price=52.005)
    wrong = refused(
        create_order.sync_detailed(client=client, body=OrderCreate(user_id=user.id, items=[strange])),
        HTTPStatus.BAD_REQUEST,
    ).error
    assert [detail.field for detail in wrong.details] == ["items.0.quantity", "items.0.price"]

    seen = get_order.sync_detailed(id=order.id, client=client).headers["ETag"]
    completed = OrderUpdate(status=OrderUpdateStatus.COMPLETED)
    no_step = refused(update_order.sync_detailed(id=order.id, client=client, body=completed), HTTPStatus.CONFLICT)
    assert no_step.error.code == "order_state_conflict"
    begun = OrderUpdate(status=OrderUpdateStatus.IN_PROGRESS)
    step = patch_order.sync_detailed(id=order.id, client=client, body=begun, if_match=seen)
    assert step.parsed.data.status == OrderViewStatus.IN_PROGRESS
    late = patch_order.sync_detailed(id=order.id, client=client, body=begun, if_match=seen)
    assert refused(late, HTTPStatus.PRECONDITION_FAILED).error.code == "precondition_failed"

    work = TaskCreate(task_type="io", payload={"seconds": 1}, title="Ask the supplier", user_id=user.id)
    task = create_task.sync(client=client, body=work, idempotency_key="python").data
    assert create_task.sync(client=client, body=work, idempotency_key="python").data.id == task.id
    assert list_user_tasks.sync(id=user.id, client=client).data.tasks[0].id == task.id
    assert get_task.sync(id=task.id, client=client, trace=True).data.max_attempts == 3
    assert "event: end" in watch_task.sync(id=task.id, client=client)
    result = get_task_result.sync(id=task.id, client=client).data
    assert (result.status, result.result["attempt"]) == (Status.COMPLETED, 1)

    alias = Client(base_url=f"{client._base_url}/api/v1")
    later = datetime.datetime(2099, 1, 31, 15, tzinfo=datetime.UTC)
    waiting = create_task.sync(client=alias, body=TaskCreate(execute_at=later, unique_key="python")).data
    listed = list_tasks.sync(client=client, status=ListTasksStatus.PENDING, task_type="noop").data
    assert waiting.id in [one.id for one in listed.tasks]
    cancelled = cancel_task.sync(id=waiting.id, client=client).data
    assert (cancelled.status, cancelled.execute_at) == (Status.CANCELLED, later)
    cancel_task.sync(id=waiting.id, client=client, purge=True)
    assert refused(get_task.sync_detailed(id=waiting.id, client=client), HTTPStatus.NOT_FOUND).error.code

    paint = TaskCreate(task_type="paint", payload={"areas": [32, 18.5, 21]})
    painted = create_task.sync(client=client, body=paint).data
    assert "event: end" in watch_task.sync(id=painted.id, client=client)
    assert get_task_result.sync(id=painted.id, client=client).data.result == {"litres": 8.9}

    limit = time.monotonic() + PATIENCE_SECONDS
    while health.sync(client=client).data.status is not HealthViewStatus.HEALTHY:
        assert time.monotonic() < limit
        time.sleep(0.2)


def walk_without_orders(client: Client) -> None:
    codes = [refused(list_orders.sync_detailed(client=client), HTTPStatus.SERVICE_UNAVAILABLE).error.code]
    while codes[-1] != "circuit_open":
        assert set(codes) == {"orders_unavailable"}
        assert len(codes) < 20
        codes.append(refused(list_orders.sync_detailed(client=client), HTTPStatus.SERVICE_UNAVAILABLE).error.code)
    details = show_user_details.sync(id=user_with_the_address(client), client=client).data
    assert (details.orders, details.partial) == (None, True)
    assert details.missing["orders"].code == "circuit_open"
    state = health.sync(client=client).data
    assert (state.status, state.upstreams["orders"].state) == (HealthViewStatus.DEGRADED, "open")


if __name__ == "__main__":
    with Client(base_url=sys.argv[1]) as server:
        {"all": walk, "no-orders": walk_without_orders}[sys.argv[2]](server)
