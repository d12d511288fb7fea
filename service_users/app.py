"""The composition root of the users service."""

from __future__ import annotations

from flask import Flask

from service_users.errors import EmailTaken
from service_users.passwords import Passwords
from service_users.routes import user_routes
from service_users.settings import UsersSettings
from service_users.use_cases import Users
from servicekit.database.engine import LOCK_TIMEOUT_MS, Database
from servicekit.events.inbox import Inbox, event_routes
from servicekit.identity.enforcement import identify_with
from servicekit.web.app import make_app
from servicekit.wire.browsers import BrowserRules

CONSTRAINTS = {"uq_users_email_key": EmailTaken}


def create_app(settings: UsersSettings) -> Flask:
    """Wire the service; no connection is opened before the first request."""
    database = Database(
        settings.users_database_url,
        application_name="service_users",
        pool_size=settings.connections,
        constraints=CONSTRAINTS,
        lock_timeout_ms=LOCK_TIMEOUT_MS,
    )
    # At most half of the threads, so that requests without a password still run.
    users = Users(database, Passwords(places=max(1, settings.service_threads // 2)))
    return make_app(
        "service_users",
        # No event of another service matters here yet: all are acknowledged and dropped.
        routes=[user_routes(users), event_routes(Inbox(database, {}), settings.token)],
        checks={"database": database.ping},
        browsers=BrowserRules(settings.allowed_hosts, settings.users_bind),
        identify=identify_with(settings),
        description="The people of the building sites.",
    )
