"""Gunicorn's door to the event streams."""

from service_tasks.events.app import create_app
from service_tasks.settings import EventsSettings
from servicekit import logs
from servicekit.settings import loaded_or_exit

_settings = loaded_or_exit(EventsSettings, "task_events")
logs.configure("task_events", fmt=_settings.log_format, level=_settings.log_level)
app = create_app(_settings)
