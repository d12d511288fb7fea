"""Request and response bodies of orders."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema, model_validator

from service_orders.domain import LARGEST_TOTAL
from servicekit.web.paging import SortedPage, SortedQuery
from servicekit.web.preconditions import Resource
from servicekit.web.schemas import (
    Amount,
    Body,
    Id,
    Money,
    QueryFlag,
    QueryText,
    Timestamp,
    Update,
    View,
    Visible,
    unsent,
)

StatusWord = Literal["created", "in_progress", "completed", "cancelled"]


def _cents(value: Decimal) -> Decimal:
    if value != round(value, 2):
        raise ValueError("must have at most two decimals")
    return abs(value)  # JSON has a negative zero, and Decimal keeps its sign


Price = Annotated[
    Amount,
    Field(ge=0, le=LARGEST_TOTAL),
    AfterValidator(_cents),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": float(LARGEST_TOTAL)},
                {"type": "string", "pattern": r"^[0-9]{1,8}\.[0-9]{2}$", "examples": ["52.00"]},
            ]
        }
    ),
]
Sought = Annotated[QueryText, StringConstraints(max_length=200)]
Product = Annotated[str, StringConstraints(min_length=1, max_length=200), Visible]


class Item(Body):
    """One line of an order."""

    product: Product = Field(examples=["Чокопай"])
    quantity: int = Field(ge=1, le=1_000_000, examples=[10])
    price: Price = Field(
        description="for one, with at most two decimals; a string as in answers will do", examples=[52.00]
    )


Items = Annotated[list[Item], Field(min_length=1, max_length=200)]


class OrderCreate(Body):
    """A new order. Its status is created; its total is computed."""

    example: ClassVar[Mapping[str, Any]] = {
        "user_id": "01a1fbc0-c7b2-73cb-959e-ecfd3cf6f650",
        "items": [{"product": "Чокопай", "quantity": 10, "price": 52.00}],
    }

    user_id: Id = Field(description="a user who exists")
    items: Items


class OrderQuery(SortedQuery):
    """Which orders are wanted."""

    sort: Literal["-created_at", "created_at", "total_amount", "-total_amount"] = Field(
        default="-created_at", description="the field to sort by; with a minus sign descending"
    )
    total: QueryFlag = Field(
        default=True, description="false: nothing is counted and added up, which is faster for long lists"
    )
    user_id: Id | None = Field(default=None, description="orders of this user")
    userId: Id | None = Field(  # the older spelling
        default=None, description="the same as user_id"
    )
    status: StatusWord | None = Field(default=None, description="orders that stand there")
    product: Sought | None = Field(default=None, description="part of the name of a product, whatever the case")

    @model_validator(mode="after")
    def _one_spelling(self) -> Self:
        if self.user_id and self.userId and self.user_id != self.userId:
            raise ValueError("user_id and userId name different users")
        return self

    @property
    def owner(self) -> UUID | None:
        """The requested user, under either spelling."""
        return self.user_id or self.userId


class ItemView(View):
    """One line of an order."""

    product: str
    quantity: int
    price: Money


class OrderView(Resource):
    """An order."""

    id: UUID
    user_id: UUID
    items: list[ItemView]
    status: StatusWord
    total_amount: Money = Field(description="computed exactly; at most 99999999.99")
    cancel_reason: str | None = Field(description="why it was cancelled, when nobody asked for that")
    created_at: Timestamp
    updated_at: Timestamp


class OrderUpdate(Update):
    """The fields to change; the others stay as they are. An order as GET shows it may be sent back whole."""

    example: ClassVar[Mapping[str, Any]] = {"status": "in_progress"}
    shown = OrderView
    fixed = Update.fixed | {"user_id"}

    items: Items = unsent("other items only while the order is created")
    status: StatusWord = unsent("the status it has already is no step, and no error")


class OrderPage(SortedPage):
    """A page of orders."""

    limit: int = Field(
        description="how many were shown at most: fewer than asked for where that is over 1 MiB of items"
    )
    total_amount: Money | None = Field(
        description="the sum of all orders that match, also those of other pages; null if `total` is not exact"
    )
    orders: list[OrderView]
