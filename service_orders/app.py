"""The composition root of the orders service."""

from __future__ import annotations

from flask import Flask

from service_orders.errors import UsersUnavailable
from service_orders.routes import order_routes
from service_orders.settings import OrdersSettings
from service_orders.use_cases import Orders
from service_orders.users_client import UsersClient
from servicekit.circuits import Circuit, CircuitSettings, shared_state
from servicekit.database.engine import LOCK_TIMEOUT_MS, Database
from servicekit.events.backlog import outbox_routes
from servicekit.events.inbox import Inbox, event_routes
from servicekit.http_client import ServiceClient
from servicekit.identity.enforcement import identify_with
from servicekit.web.app import make_app
from servicekit.wire.browsers import BrowserRules

# Less than the gateway's limit, so that the answer names a slow users service instead of a plain 504.
USERS_TOTAL_SECONDS = 3.0


def create_app(settings: OrdersSettings) -> Flask:
    """Wire the service; no connection is opened before the first request."""
    database = Database(
        settings.orders_database_url,
        application_name="service_orders",
        pool_size=settings.connections,
        lock_timeout_ms=LOCK_TIMEOUT_MS,
    )
    users = UsersClient(
        ServiceClient(
            settings.users_url,
            circuit=Circuit("users", store=shared_state.store_for("service_orders", "users", CircuitSettings())),
            unavailable=UsersUnavailable,
            pool_size=settings.service_threads,
            total_seconds=USERS_TOTAL_SECONDS,
        )
    )
    orders = Orders(database, users)
    inbox = Inbox(database, {"user.deleted": orders.user_deleted})
    return make_app(
        "service_orders",
        routes=[order_routes(orders), event_routes(inbox, settings.token), outbox_routes("orders", database)],
        checks={"database": database.ping},
        browsers=BrowserRules(settings.allowed_hosts, settings.orders_bind),
        identify=identify_with(settings),
        description="The orders of the building sites.",
    )
