"""The composition root of the sites service."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Flask

from service_sites.errors import (
    LocationNameTaken,
    MemberExists,
    OperationReused,
    PeopleUnavailable,
    SiteKeyTaken,
    UnknownLocation,
)
from service_sites.routes.changes import change_routes
from service_sites.routes.comments import comment_routes
from service_sites.routes.items import item_routes
from service_sites.routes.members import member_routes
from service_sites.routes.places import place_routes
from service_sites.routes.reports import report_routes
from service_sites.routes.sites import site_routes
from service_sites.routes.steps import step_routes
from service_sites.settings import SitesSettings
from service_sites.use_cases.changes import Changes
from service_sites.use_cases.comments import Comments
from service_sites.use_cases.items import WorkItems
from service_sites.use_cases.members import Members
from service_sites.use_cases.places import Calendars, Places
from service_sites.use_cases.reports import Reports
from service_sites.use_cases.sites import Sites
from service_sites.use_cases.steps import Steps
from service_sites.use_cases.user_events import UserEvents
from service_sites.users_client import Names, PeopleClient, PeopleDirectory
from servicekit.circuits import Circuit, CircuitSettings, shared_state
from servicekit.database.engine import LOCK_TIMEOUT_MS, Database
from servicekit.events.backlog import outbox_routes
from servicekit.events.inbox import Inbox, event_routes
from servicekit.http_client import ServiceClient
from servicekit.identity.enforcement import identify_with
from servicekit.process.clock import Clock, utc_now
from servicekit.web.app import make_app
from servicekit.web.routes import Routes
from servicekit.wire.browsers import BrowserRules
from servicekit.wire.errors import AppError

#: The errors that violated constraints become.
CONSTRAINTS: Mapping[str, type[AppError]] = {
    "fk_work_items_location_id": UnknownLocation,
    "pk_memberships": MemberExists,
    "pk_operations": OperationReused,
    "uq_locations_name": LocationNameTaken,
    "uq_sites_key": SiteKeyTaken,
}
#: Less than the gateway's limit, so that the answer names a slow users service instead of a plain 504.
PEOPLE_TOTAL_SECONDS = 3.0


def public_routes(
    database: Database,
    people: PeopleDirectory,
    secret: str = "",
    *,
    reports_at_once: int = 4,
    clock: Clock = utc_now,
) -> list[Routes]:
    """Everything that people and programs may ask. `secret` seals what they are to send back."""
    names = Names(people)
    reports = Reports(database, reports_at_once, clock=clock)
    return [
        site_routes(Sites(database, people, clock=clock)),
        member_routes(Members(database, people, clock=clock)),
        place_routes(Places(database), Calendars(database, clock=clock)),
        item_routes(WorkItems(database, names, reports, clock=clock)),
        step_routes(Steps(database, names, clock=clock)),
        report_routes(reports),
        comment_routes(Comments(database, names, clock=clock)),
        change_routes(Changes(database, secret, clock=clock)),
    ]


def create_app(settings: SitesSettings) -> Flask:
    """Wire the service; no connection is opened before the first request."""
    database = Database(
        settings.sites_database_url,
        application_name="service_sites",
        pool_size=settings.connections,
        constraints=CONSTRAINTS,
        lock_timeout_ms=LOCK_TIMEOUT_MS,
    )
    people = PeopleClient(
        ServiceClient(
            settings.users_url,
            circuit=Circuit("users", store=shared_state.store_for("service_sites", "users", CircuitSettings())),
            unavailable=PeopleUnavailable,
            pool_size=settings.service_threads,
            total_seconds=PEOPLE_TOTAL_SECONDS,
        ),
        settings.token_for_people,
    )
    users = UserEvents()
    handlers = {
        "user.updated": users.updated,
        "user.disabled": users.disabled,
        "user.enabled": users.enabled,
        "user.deleted": users.deleted,
    }
    return make_app(
        "service_sites",
        routes=[
            *public_routes(database, people, settings.token or "", reports_at_once=max(settings.connections // 2, 1)),
            event_routes(Inbox(database, handlers), settings.token),
            outbox_routes("sites", database),
        ],
        checks={"database": database.ping},
        browsers=BrowserRules(settings.allowed_hosts, settings.sites_bind),
        identify=identify_with(settings),
        description="The building sites, their people and their work.",
    )
