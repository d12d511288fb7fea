"""The composition root of the event streams, a process with an event loop beside the task service."""

from __future__ import annotations

import asyncio

from service_tasks.persistence.wake_ups import PostgresWakeUps
from service_tasks.persistence.watch_store import WatchStore
from service_tasks.settings import EventsSettings
from service_tasks.streams.feed import Feed
from service_tasks.streams.handler import TaskStreamHandler
from service_tasks.streams.listener import EventListener
from service_tasks.streams.metrics import StreamMetrics
from service_tasks.streams.routes import stream_routes
from servicekit.database.engine import Database
from servicekit.http_server.application import Application
from servicekit.identity.enforcement import asks_for_login, identify_with
from servicekit.observing.logs import get_logger
from servicekit.observing.metrics import Metrics
from servicekit.process.lifecycle import stop_this_process
from servicekit.process.version import VERSION
from servicekit.web import openapi
from servicekit.wire.browsers import BrowserRules

SERVICE = "task_events"
#: For the feed, for /readyz, and one that the listener takes out of the pool.
_CONNECTIONS = 3
#: The interval at which all watched tasks are queried, with one statement.
_POLL_SECONDS = 0.25
#: The longest silence of a stream: below the gateway's idle limit of 60 s.
_KEEP_ALIVE_SECONDS = 15.0

_log = get_logger(__name__)


class StreamsApp(Application):
    """The application; no connection is opened before it starts."""

    def __init__(self, settings: EventsSettings) -> None:
        self._database = Database(settings.tasks_database_url, application_name=SERVICE, pool_size=_CONNECTIONS)
        self._feed = Feed(
            WatchStore(self._database).changed,
            interval=_POLL_SECONDS,
            limit=settings.events_watchers,
        )
        metrics = Metrics(SERVICE)
        identify = identify_with(settings)
        self.handler = TaskStreamHandler(
            self._feed,
            checks={"database": self._database.ping},
            metrics=metrics,
            stream_metrics=StreamMetrics(metrics.registry, self._feed),
            document=openapi.document(
                title=SERVICE,
                version=VERSION,
                description="Tasks as they change.",
                routes=[stream_routes()],
                login=asks_for_login(identify),
            ),
            keep_alive_seconds=_KEEP_ALIVE_SECONDS,
            browsers=BrowserRules(settings.allowed_hosts, settings.events_bind),
            identify=identify,
        )
        self._looking: asyncio.Task[None] | None = None
        self._listener: EventListener | None = None

    def start(self) -> None:
        """Start polling and listening; called on the running event loop."""
        loop = asyncio.get_running_loop()

        def look_now() -> None:
            loop.call_soon_threadsafe(self._feed.look_now)

        self._looking = loop.create_task(self._feed.run(), name="feed")
        self._looking.add_done_callback(_stop_unless_cancelled)
        self._listener = EventListener(
            lambda: PostgresWakeUps(self._database),
            look_now=look_now,
            on_death=stop_this_process,
        )
        self._listener.start()

    async def stop(self) -> None:
        """End everything; harmless before start."""
        self._feed.close()
        if self._looking is not None:
            self._looking.cancel()
        if self._listener is not None:
            await asyncio.to_thread(self._listener.stop)
            self._listener.close()
        self._database.dispose()


def _stop_unless_cancelled(looking: asyncio.Task[None]) -> None:
    if not looking.cancelled():
        _log.error("feed_died", cause=repr(looking.exception()))
        stop_this_process()
