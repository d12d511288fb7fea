"""The orders' routes: parse, call, answer. Rules and queries are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from service_orders.errors import OrderNotFound, OrderStateConflict, UnknownUser, UsersUnavailable
from service_orders.schemas import OrderCreate, OrderPage, OrderQuery, OrderUpdate, OrderView
from service_orders.use_cases import Orders
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web import idempotency
from servicekit.web.preconditions import IfMatch
from servicekit.web.routes import Answer, Routes
from servicekit.wire.errors import BadGateway, Forbidden, IdempotencyKeyReused


def order_routes(orders: Orders) -> Routes:
    """Declare the operations on orders."""
    api = Routes("orders")

    @api.get("/orders", action=Action.READ_ORDERS, shared="by reach")
    def list_orders(query: OrderQuery, caller: Principal) -> OrderPage:
        """List orders, the newest first unless sorted otherwise."""
        return orders.search(query, reach=caller.reach(Action.READ_ORDERS))

    @api.post(
        "/orders",
        action=Action.CHANGE_ORDERS,
        status=201,
        errors=(UnknownUser, Forbidden, OrderNotFound, IdempotencyKeyReused, UsersUnavailable, BadGateway),
        headers=idempotency.HEADERS,
    )
    def create_order(body: OrderCreate, headers: Mapping[str, str | None], caller: Principal) -> Answer[OrderView]:
        """Create an order for a user who exists; the total is computed.

        A repeated Idempotency-Key answers with the order made before and `Idempotency-Replayed: true`; with 404 when
        that order was deleted.
        """
        key = idempotency.request_key(headers, body)
        made = orders.create(body, key, reach=caller.reach(Action.CHANGE_ORDERS), token=caller.token)
        return Answer(made.view, headers={"Location": f"/orders/{made.view.id}", **made.headers})

    @api.get("/orders/{id}", action=Action.READ_ORDERS, errors=(OrderNotFound,), shared="by reach")
    def get_order(id: UUID, caller: Principal) -> OrderView:
        """Show one order."""
        return orders.get(id, reach=caller.reach(Action.READ_ORDERS))

    @api.put("/orders/{id}", action=Action.CHANGE_ORDERS, errors=(OrderNotFound, OrderStateConflict))
    def update_order(id: UUID, body: OrderUpdate, if_match: IfMatch, caller: Principal) -> OrderView:
        """Change the items (while created) or take the next status step.

        created leads to in_progress, in_progress to completed, and both to cancelled.
        """
        return orders.update(id, body, if_match, reach=caller.reach(Action.CHANGE_ORDERS))

    @api.delete("/orders/{id}", action=Action.CHANGE_ORDERS, errors=(OrderNotFound, OrderStateConflict))
    def delete_order(id: UUID, if_match: IfMatch, caller: Principal) -> OrderView:
        """Delete a created or cancelled order; the answer is the order as it was."""
        return orders.delete(id, if_match, reach=caller.reach(Action.CHANGE_ORDERS))

    return api
