"""The composition root of the task service."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Flask

from service_tasks.engine.registry import load_registry
from service_tasks.errors import ScheduleNameTaken
from service_tasks.metrics.stats import FROM_THE_DATABASE, StatsCollector
from service_tasks.persistence.announcer import Announcer
from service_tasks.persistence.bulk_store import BulkStore
from service_tasks.persistence.message_store import MessageStore
from service_tasks.persistence.schedule_store import ScheduleStore
from service_tasks.persistence.stats_store import StatsStore
from service_tasks.persistence.task_ends import TaskEnds
from service_tasks.persistence.task_store import TaskStore
from service_tasks.routes.bulk import bulk_routes
from service_tasks.routes.messages import message_routes
from service_tasks.routes.schedules import schedule_routes
from service_tasks.routes.stats import stats_routes
from service_tasks.routes.tasks import task_routes
from service_tasks.settings import TasksSettings
from service_tasks.use_cases.account_mail import MailOfAccounts
from service_tasks.use_cases.bulk import Bulk
from service_tasks.use_cases.messages import Messages
from service_tasks.use_cases.schedules import Schedules
from service_tasks.use_cases.stats import Stats
from service_tasks.use_cases.tasks import Tasks
from service_tasks.use_cases.user_departure import UserDeparture
from servicekit.database.engine import LOCK_TIMEOUT_MS, Database
from servicekit.events.backlog import outbox_routes
from servicekit.events.inbox import Inbox, event_routes
from servicekit.identity.enforcement import identify_with
from servicekit.observing.metrics import Metrics
from servicekit.process.lifecycle import stop_this_process
from servicekit.web.app import make_app
from servicekit.wire.browsers import BrowserRules
from servicekit.wire.errors import AppError

#: the errors that violated constraints become
CONSTRAINTS: Mapping[str, type[AppError]] = {"uq_schedules_name": ScheduleNameTaken}


def create_app(settings: TasksSettings) -> Flask:
    """Wire the service; no connection is opened before the first request.

    Raises `BadTaskTypes` if a module of TASK_MODULES cannot be used.
    """
    database = Database(
        settings.tasks_database_url,
        application_name="service_tasks",
        pool_size=settings.connections,
        constraints=CONSTRAINTS,
        lock_timeout_ms=LOCK_TIMEOUT_MS,
    )
    ends = TaskEnds(settings.event_states)
    store = TaskStore(database, ends)
    schedule_store = ScheduleStore(database)
    of_users = UserDeparture(ends, schedule_store)
    inbox = Inbox(
        database,
        {
            "user.deleted": of_users.act_on_deleted,
            "user.updated": of_users.act_on_updated,
            "user.disabled": of_users.act_on_disabled,
            "mail.wanted": MailOfAccounts(store).act,
        },
    )
    announcer = Announcer(store, on_death=stop_this_process)
    registry = load_registry(settings.modules)
    tasks = Tasks(
        store,
        registry,
        announce=announcer.announce,
        may_announce=announcer.may_announce,
        callback_hosts=settings.allowed_callback_hosts,
    )
    schedules = Schedules(
        schedule_store,
        tasks,
        announce=announcer.announce,
        limit=settings.schedules_limit,
        limit_per_user=settings.schedules_limit_per_user,
    )
    messages = Messages(MessageStore(database), tasks, announce=announcer.announce)
    bulk = Bulk(BulkStore(database, ends), announce=announcer.announce)
    stats = Stats(StatsStore(database))
    metrics = Metrics("service_tasks", same_everywhere=FROM_THE_DATABASE)
    StatsCollector(stats, registry.names(), metrics.registry)
    return make_app(
        "service_tasks",
        metrics=metrics,
        routes=[
            # Before the tasks' routes: /tasks/rejected and the like are not ids.
            message_routes(messages),
            stats_routes(stats),
            bulk_routes(bulk),
            task_routes(tasks),
            schedule_routes(schedules),
            event_routes(inbox, settings.token),
            outbox_routes("tasks", database),
        ],
        checks={"database": database.ping},
        browsers=BrowserRules(settings.allowed_hosts, settings.tasks_bind),
        identify=identify_with(settings),
        description="Tasks that run now, later, again when they fail, and by schedules.",
    )
