"""The process that makes tasks from messages."""

from __future__ import annotations

import os
import socket
import threading
from functools import partial

from service_tasks.engine.registry import Registry
from service_tasks.ingest.consumer import FLUSH_SECONDS, Consumer, IngestCounts
from service_tasks.ingest.metrics import IngestMetrics
from service_tasks.persistence.announcer import Announcer
from service_tasks.persistence.message_store import MessageStore
from service_tasks.persistence.task_store import TaskStore
from service_tasks.settings import IngestSettings
from service_tasks.use_cases.messages import Messages
from service_tasks.use_cases.tasks import Tasks
from servicekit.database.engine import Database
from servicekit.events.broker import BrokerLink
from servicekit.observing.logs import get_logger
from servicekit.observing.metrics import Metrics
from servicekit.process.lifecycle import next_order, stop_orders
from servicekit.web.health import Check
from servicekit.web.pages import serve_pages
from servicekit.wire.errors import Unavailable

NAME = "task_ingest"
log = get_logger(__name__)


def run_ingest(settings: IngestSettings, registry: Registry) -> int:
    """Consume until SIGTERM or SIGINT; return the process's exit status."""
    # One for the writer, one for the announcer, one for the pages.
    database = Database(settings.tasks_database_url, application_name=NAME, pool_size=3)
    died = threading.Event()
    stopping = stop_orders()

    def on_death() -> None:
        died.set()
        stopping.put(None)

    store = TaskStore(database)
    announcer = Announcer(store, on_death=on_death)
    tasks = Tasks(
        store,
        registry,
        announce=announcer.announce,
        callback_hosts=settings.allowed_callback_hosts,
    )
    messages = Messages(MessageStore(database), tasks, announce=announcer.announce)
    counts = IngestCounts()
    ready = partial(database.ping, writing=True)
    connection_name = f"{NAME} {socket.gethostname()}:{os.getpid()}"
    consumer = Consumer(
        open_link=lambda: BrokerLink(settings.rabbitmq_url, name=connection_name),
        take=messages.take,
        ready=ready,
        counts=counts,
        on_death=on_death,
    )
    metrics = Metrics(NAME)
    IngestMetrics(counts, metrics.registry)

    def broker_is_connected() -> None:
        if not counts.connected:
            raise Unavailable("RabbitMQ cannot be reached at the moment.")

    checks: dict[str, Check] = {"database": ready, "broker": broker_is_connected}
    pages = serve_pages(NAME, settings.ingest_bind, checks, metrics, allowed_hosts=settings.allowed_hosts)
    consumer.start()
    log.info("ingest_started")
    next_order(stopping)
    consumer.stop(FLUSH_SECONDS + 5)
    announcer.stop()
    pages.shutdown()
    database.dispose()
    log.info("ingest_stopped", written=counts.written)
    return 1 if died.is_set() else 0
