"""The composition root of the task service."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

from flask import Flask

from service_tasks.engine.registry import load_registry
from service_tasks.errors import ScheduleNameTaken
from service_tasks.persistence.announcer import Announcer
from service_tasks.persistence.schedule_store import ScheduleStore
from service_tasks.persistence.task_store import TaskStore
from service_tasks.routes import task_routes
from service_tasks.schedule_routes import schedule_routes
from service_tasks.schedule_use_cases import Schedules
from service_tasks.settings import TasksSettings
from service_tasks.use_cases import Tasks
from servicekit.database import Database
from servicekit.errors import AppError
from servicekit.web import make_app

#: What a person is told when the database refuses a row.
CONSTRAINTS: Mapping[str, type[AppError]] = {"uq_schedules_name": ScheduleNameTaken}


def create_app(settings: TasksSettings) -> Flask:
    """Wire the service; no connection is opened before the first request.

    Raises `BadTaskTypes` when a module of TASK_MODULES cannot be used.
    """
    database = Database(
        settings.tasks_database_url,
        application_name="service_tasks",
        # One more for the announcer's thread.
        pool_size=settings.tasks_threads + 1,
        constraints=CONSTRAINTS,
    )
    store = TaskStore(database)
    announcer = Announcer(store, on_death=_stop_this_process)
    tasks = Tasks(
        store,
        load_registry(settings.modules),
        default_type=settings.default_task_type,
        announce=announcer.announce,
    )
    schedules = Schedules(ScheduleStore(database, store), tasks, announce=announcer.announce)
    return make_app(
        "service_tasks",
        routes=[task_routes(tasks), schedule_routes(schedules)],
        checks={"database": database.ping},
        description="Tasks that run now, later, again when they fail, and by schedules.",
    )


def _stop_this_process() -> None:
    """gunicorn starts a sound one."""
    os.kill(os.getpid(), signal.SIGTERM)
