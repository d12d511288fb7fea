"""How gunicorn runs the event streams: one event loop, and a connection for each stream."""

from service_tasks.settings import EventsSettings
from servicekit.observing import logs
from servicekit.process.gunicorn_defaults import *  # noqa: F403 - gunicorn reads a module's names
from servicekit.process.lifecycle import allow_many_files
from servicekit.process.settings import load_or_exit

_settings = load_or_exit(EventsSettings, "task_events")
logs.configure("task_events", fmt=_settings.log_format, level=_settings.log_level)
allow_many_files()

wsgi_app = "service_tasks.streams.asgi:app"
proc_name = "task_events"
bind = _settings.events_bind
worker_class = "servicekit.http_server.event_loop_worker.EventLoopWorker"
asgi_loop = "asyncio"
asgi_lifespan = "on"
http_parser = "python"
worker_connections = 100_000
backlog = 2048
# An idle connection after its stream would only delay the end of this process.
keepalive = 0
# A client that leaves frees what it held at once.
asgi_disconnect_grace_period = 0
# Streams end at once when told to; this is for clients that take nothing.
graceful_timeout = 10
