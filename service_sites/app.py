"""The composition root of the sites service."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Flask

from service_sites.errors import SiteKeyTaken
from service_sites.routes.sites import site_routes
from service_sites.settings import SitesSettings
from service_sites.use_cases.sites import Sites
from service_sites.use_cases.user_events import UserEvents
from servicekit.database.engine import LOCK_TIMEOUT_MS, Database
from servicekit.events.inbox import Inbox, event_routes
from servicekit.identity.enforcement import identify_with
from servicekit.web.app import make_app
from servicekit.wire.browsers import BrowserRules
from servicekit.wire.errors import AppError

#: The errors that violated constraints become.
CONSTRAINTS: Mapping[str, type[AppError]] = {"uq_sites_key": SiteKeyTaken}


def create_app(settings: SitesSettings) -> Flask:
    """Wire the service; no connection is opened before the first request."""
    database = Database(
        settings.sites_database_url,
        application_name="service_sites",
        pool_size=settings.connections,
        constraints=CONSTRAINTS,
        lock_timeout_ms=LOCK_TIMEOUT_MS,
    )
    users = UserEvents()
    handlers = {"user.updated": users.updated, "user.disabled": users.disabled, "user.deleted": users.deleted}
    return make_app(
        "service_sites",
        routes=[site_routes(Sites(database)), event_routes(Inbox(database, handlers), settings.token)],
        checks={"database": database.ping},
        browsers=BrowserRules(settings.allowed_hosts, settings.sites_bind),
        identify=identify_with(settings),
        description="The building sites, their people and their work.",
    )
