"""The ASGI application that gunicorn loads for the event streams."""

from service_tasks.settings import EventsSettings
from service_tasks.streams.app import StreamsApp
from servicekit.observing import logs
from servicekit.process.settings import loaded_or_exit

_settings = loaded_or_exit(EventsSettings, "task_events")
logs.configure("task_events", fmt=_settings.log_format, level=_settings.log_level)
app = StreamsApp(_settings)
