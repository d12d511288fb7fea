"""The events of the orders service. docs/reference/events.md lists them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from service_orders.domain import OrderStatus
from servicekit.events.cloudevents import Event
from servicekit.web.encoders import encoder_of
from servicekit.web.schemas import Money, Timestamp
from servicekit.wire.envelope import Written


class OrderData(BaseModel):
    """An order, without its items."""

    id: UUID
    user_id: UUID
    status: OrderStatus
    total_amount: Money
    created_at: Timestamp
    updated_at: Timestamp


class OrderStepData(OrderData):
    """An order after a step."""

    old_status: OrderStatus
    cancel_reason: str | None


#: The data of each event.
CATALOGUE: dict[str, type[BaseModel]] = {
    "order.created": OrderData,
    "order.status_changed": OrderStepData,
    "order.deleted": OrderData,
}


def created(order: Any) -> Event:
    """An order was stored: any object with the attributes of `OrderData`."""
    return _event("order.created", order, order.created_at)


def status_changed(order: Any, old: str) -> Event:
    """An order took a step; `order` is as it is now."""
    present = {name: getattr(order, name) for name in OrderStepData.model_fields if name != "old_status"}
    return _event("order.status_changed", OrderStepData.model_construct(**present, old_status=old), order.updated_at)


def deleted(order: Any, moment: datetime) -> Event:
    """An order was removed; the data is the order as it was."""
    return _event("order.deleted", order, moment)


def _event(type: str, data: Any, moment: datetime) -> Event:
    return Event(type=type, subject=data.id, data=Written(encoder_of(CATALOGUE[type])(data)), time=moment)
