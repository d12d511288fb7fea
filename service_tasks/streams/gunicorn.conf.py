"""gunicorn's configuration for the event streams: one event loop, a connection per stream."""

from service_tasks.settings import EventsSettings
from servicekit.http_server.event_loop_defaults import *  # noqa: F403 - gunicorn reads a module's names
from servicekit.observing import logs
from servicekit.process.lifecycle import allow_many_files
from servicekit.process.settings import load_or_exit

_settings = load_or_exit(EventsSettings, "task_events")
logs.configure("task_events", fmt=_settings.log_format, level=_settings.log_level)
allow_many_files()

wsgi_app = "service_tasks.streams.asgi:app"
proc_name = "task_events"
bind = _settings.events_bind
asgi_loop = "asyncio"
# Idle connections would only delay the end of this process.
keepalive = 0
# Streams end at once; this is for clients that do not read.
graceful_timeout = 10
