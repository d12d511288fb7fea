"""The events of the orders service. docs/reference/events.md lists them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from service_orders.domain import OrderStatus
from servicekit.events.cloudevents import Event
from servicekit.web.schemas import Money, Timestamp


class OrderData(BaseModel):
    """An order, without its items."""

    model_config = ConfigDict(from_attributes=True)

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


def created(order: object) -> Event:
    """An order was stored: any object with the attributes of `OrderData`."""
    data = OrderData.model_validate(order)
    return _event("order.created", data, data.created_at)


def status_changed(order: Any, old: str) -> Event:
    """An order took a step; `order` is as it is now."""
    present = {name: getattr(order, name) for name in OrderStepData.model_fields if name != "old_status"}
    step = OrderStepData.model_validate({**present, "old_status": old})
    return _event("order.status_changed", step, step.updated_at)


def deleted(order: object, moment: datetime) -> Event:
    """An order was removed; the data is the order as it was."""
    return _event("order.deleted", OrderData.model_validate(order), moment)


def _event(type: str, data: OrderData, moment: datetime) -> Event:
    content: dict[str, Any] = data.model_dump()
    return Event(type=type, subject=data.id, data=content, time=moment)
