"""Gunicorn's door to the task service."""

from service_tasks.app import create_app
from service_tasks.engine.registry import BadTaskTypes
from service_tasks.settings import TasksSettings
from servicekit.observing import logs
from servicekit.process.settings import loaded_or_exit

settings = loaded_or_exit(TasksSettings, "service_tasks")
logs.configure("service_tasks", fmt=settings.log_format, level=settings.log_level)
try:
    app = create_app(settings)
except BadTaskTypes as exc:
    raise SystemExit(f"service_tasks cannot start: {exc}") from exc
