"""(pure) The rules for orders: exact totals, and the steps between statuses."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum

from service_orders.errors import OrderStateConflict, TotalTooLarge

#: The most that numeric(10,2) holds.
LARGEST_TOTAL = Decimal("99999999.99")


class OrderStatus(StrEnum):
    """The status of an order."""

    CREATED = "created"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


TRANSITIONS: dict[OrderStatus, frozenset[OrderStatus]] = {
    OrderStatus.CREATED: frozenset({OrderStatus.IN_PROGRESS, OrderStatus.CANCELLED}),
    OrderStatus.IN_PROGRESS: frozenset({OrderStatus.COMPLETED, OrderStatus.CANCELLED}),
    OrderStatus.COMPLETED: frozenset(),
    OrderStatus.CANCELLED: frozenset(),
}
#: The statuses in which an order may still be cancelled.
OPEN = frozenset(status for status, after in TRANSITIONS.items() if OrderStatus.CANCELLED in after)
DELETABLE = frozenset({OrderStatus.CREATED, OrderStatus.CANCELLED})

USER_DELETED = "the user was deleted"


def total_of(lines: Iterable[tuple[int, Decimal]]) -> Decimal:
    """Add up (quantity, price) pairs exactly, to two decimals; `TotalTooLarge` beyond numeric(10,2)."""
    total = sum((quantity * price for quantity, price in lines), Decimal(0)).quantize(Decimal("0.01"))
    if total > LARGEST_TOTAL:
        raise TotalTooLarge(str(LARGEST_TOTAL))
    return total


def step(present: OrderStatus, wanted: OrderStatus) -> OrderStatus:
    """Return the status after the step, or raise `OrderStateConflict`. The present status is always allowed."""
    if wanted is not present and wanted not in TRANSITIONS[present]:
        raise OrderStateConflict(f"An order that is {present} cannot become {wanted}.")
    return wanted


def require_items_changeable(present: OrderStatus) -> None:
    """Items change only while the order is created."""
    if present is not OrderStatus.CREATED:
        raise OrderStateConflict(f"The items of an order that is {present} cannot change; only while it is created.")


def require_deletable(present: OrderStatus) -> None:
    """Only created and cancelled orders can be deleted."""
    if present not in DELETABLE:
        raise OrderStateConflict(f"An order that is {present} cannot be deleted; only created and cancelled ones.")
