"""Errors of the orders service.

Invalid      ⊃ UnknownUser, TotalTooLarge
NotFound     ⊃ OrderNotFound
Conflict     ⊃ OrderStateConflict
Unavailable  ⊃ UsersUnavailable
"""

from __future__ import annotations

from servicekit.wire.errors import Conflict, FieldError, Invalid, NotFound, Unavailable


class UnknownUser(Invalid):
    """There is no user with this id.

    An order is made for a user who exists.
    """

    code = "user_not_found"

    def __init__(self) -> None:
        super().__init__(details=[FieldError("user_id", "there is no user with this id")])


class TotalTooLarge(Invalid):
    """The total is larger than an order can have."""

    def __init__(self, largest: str) -> None:
        super().__init__(details=[FieldError("items", f"add up to more than {largest}")])


class OrderNotFound(NotFound):
    """There is no order with this id."""

    code = "order_not_found"


class OrderStateConflict(Conflict):
    """The order's status does not allow this.

    Only some steps are allowed, and only created and cancelled orders can be deleted.
    """

    code = "order_state_conflict"


class UsersUnavailable(Unavailable):
    """The users service is not available at the moment, so the order's user cannot be checked; try again."""

    code = "users_unavailable"
