"""The process around relays, one for each of the services it is for: their calls, its pages and its end."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, create_model, model_validator

from servicekit.circuits import Circuit, CircuitSettings
from servicekit.database.engine import Database
from servicekit.events.cloudevents import BATCH_MEDIA_TYPE, PATH, Event, write_batch
from servicekit.events.relay import EventRefused, Relay
from servicekit.events.relay_metrics import RelayMetrics
from servicekit.events.relay_store import OUTBOX, ActiveLock, RelayStore
from servicekit.http_client import ServiceClient
from servicekit.observing import logs
from servicekit.observing.logs import get_logger
from servicekit.observing.metrics import Metrics
from servicekit.process.lifecycle import next_order, stop_orders
from servicekit.process.services import services
from servicekit.process.settings import Bind, BrokerUrl, DatabaseUrl, HttpUrl, InternalToken
from servicekit.web.pages import serve_pages
from servicekit.wire.errors import Unavailable

if TYPE_CHECKING:
    from servicekit.events.broker_delivery import BrokerDelivery

PROCESS = "relay"
#: The destination that is no service.
BROKER = "rabbitmq"
#: One batch's whole call, in seconds: the other side stores it in one transaction.
TOTAL_SECONDS = 10.0
# For one service at a time: one for what is read and written, and a second lest a slow statement keep the others
# waiting. A courier needs one for moments only, and the lock leaves the pool.
_POOL_SIZE = 2
# A relay asks a destination once at a time, and nobody waits for it: a short pause is enough, and finds soon what is
# back.
_CIRCUIT = CircuitSettings(open_seconds=0.5, open_seconds_max=1.0, slow_seconds=TOTAL_SECONDS)
# Blames the event, and not the destination or what lies between.
_ABOUT_THE_EVENT = frozenset({400, 409, 413, 415, 422})
_OWN_FAULT = 500
_log = get_logger(__name__)


class RelaySettings(InternalToken):
    """What the relay reads; `relay_settings` adds where the services and their databases are."""

    process: ClassVar[str] = PROCESS

    relay_bind: Bind = Field(default="127.0.0.1:8007", description="where the relay shows its pages")
    relay_keep_days: float = Field(default=7.0, ge=0, le=3650, description="days that delivered events are kept")
    rabbitmq_url: BrokerUrl | None = Field(
        default=None,
        description="where RabbitMQ is: amqp://USER:PASSWORD@HOST:PORT/VHOST, with %2F for the usual vhost. Ingestion "
        "needs it; a relay that has it publishes every event there too",
    )

    @model_validator(mode="after")
    def _has_a_token(self) -> Self:
        if self.token is None:
            raise ValueError("INTERNAL_TOKEN is not set, nor INTERNAL_TOKEN_FILE")
        return self

    @property
    def urls(self) -> dict[str, str]:
        """Where each service is."""
        return {name: getattr(self, service.variable("URL").lower()) for name, service in services().items()}

    @property
    def database_urls(self) -> dict[str, str]:
        """Where the databases are: those that are set, by service."""
        urls = {name: getattr(self, service.variable("DATABASE_URL").lower()) for name, service in services().items()}
        return {name: url for name, url in urls.items() if url is not None}


def relay_settings(required: Collection[str] = ()) -> type[RelaySettings]:
    """Give the settings for the table of services. The databases of the services in `required` have to be set."""
    fields: dict[str, Any] = {}
    for service in services().values():
        where = f"where the {service.name} database is"
        fields[service.variable("DATABASE_URL").lower()] = (
            (DatabaseUrl, Field(description=where))
            if service.name in required
            else (DatabaseUrl | None, Field(default=None, description=where))
        )
        fields[service.variable("URL").lower()] = (
            HttpUrl,
            Field(default=service.default_url, description=f"where the {service.name} service is"),
        )
    return create_model("RelaySettings", __base__=RelaySettings, **fields)


class DestinationUnavailable(Unavailable):
    """The destination of events cannot be reached at the moment."""


class HttpDelivery:
    """Posts batches to the inbox of a service."""

    def __init__(self, service: str, destination: str, url: str, token: str) -> None:
        """`service` is who sends: the source of the events."""
        self._service = service
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": BATCH_MEDIA_TYPE}
        self._client = ServiceClient(
            url,
            circuit=Circuit(destination, settings=_CIRCUIT),
            unavailable=DestinationUnavailable,
            pool_size=1,
            total_seconds=TOTAL_SECONDS,
        )

    def __call__(self, events: Sequence[Event]) -> None:
        """Send one batch; see `Deliver`."""
        answer = self._client.post(PATH, write_batch(events, self._service), self._headers)
        if answer.code is None:
            return
        reason = f"{answer.status} {answer.code}: {answer.message}"
        if answer.status in _ABOUT_THE_EVENT or answer.status == _OWN_FAULT:
            raise EventRefused(reason, final=answer.status != _OWN_FAULT)
        # A wrong token, an older service without an inbox: no event is to blame, and none is lost.
        raise DestinationUnavailable(reason)

    def close(self) -> None:
        """Close the kept connection."""
        self._client.close()


def run_relays(settings: RelaySettings, names: Collection[str]) -> int:
    """Deliver the events of these services until SIGTERM or SIGINT; gives the exit status.

    With RABBITMQ_URL the broker is one destination more. Each service has a database, a lock, couriers and calls of its
    own, so that none waits for another.
    """
    logs.configure(PROCESS, fmt=settings.log_format, level=settings.log_level)
    died = threading.Event()
    stopping = stop_orders()

    def on_death() -> None:
        died.set()
        stopping.put(None)

    metrics = Metrics(PROCESS)
    relay_metrics = RelayMetrics(metrics.registry)
    with ExitStack() as closing:
        databases = {
            name: Database(settings.database_urls[name], application_name=PROCESS, pool_size=_POOL_SIZE)
            for name in names
        }
        relays = []
        for name, database in databases.items():
            closing.callback(database.dispose)
            deliveries = _deliveries(name, settings)
            for delivery in deliveries.values():
                closing.callback(delivery.close)
            relays.append(
                Relay(
                    name,
                    store=RelayStore(database),
                    lock=ActiveLock(database),
                    deliveries=deliveries,
                    hears=_hears() if BROKER not in deliveries else {**_hears(), BROKER: None},
                    keep_seconds=settings.relay_keep_days * 86_400,
                    metrics=relay_metrics,
                    on_death=on_death,
                )
            )
        checks = {f"{name}_database": partial(database.ping, writing=True) for name, database in databases.items()}
        pages = serve_pages(PROCESS, settings.relay_bind, checks, metrics, allowed_hosts=settings.allowed_hosts)
        for relay in relays:
            relay.start()
        _log.info("relay_started", sources=list(databases))
        next_order(stopping)
        # All at once: each may have a batch under way.
        with ThreadPoolExecutor(len(relays)) as pool:
            list(pool.map(lambda relay: relay.stop(timeout=TOTAL_SECONDS + 1), relays))
        pages.shutdown()
    _log.info("relay_stopped")
    return 1 if died.is_set() else 0


def redeliver(database_url: str, *, everything: bool = False) -> int:
    """Let events that were given up wait anew, and with `everything` all that are kept go once more to the services
    that hear them; gives how many deliveries."""
    # However many there are: nobody waits for it but who asked.
    database = Database(database_url, application_name="redeliver", pool_size=1, statement_timeout_ms=0)
    try:
        store = RelayStore(database)
        if OUTBOX not in store.tables():
            return 0
        return store.redeliver() + (store.deliver_again(_hears()) if everything else 0)
    finally:
        database.dispose()


def _hears() -> dict[str, Collection[str] | None]:
    return {service.name: service.hears for service in services().values() if service.hears}


def _deliveries(source: str, settings: RelaySettings) -> dict[str, HttpDelivery | BrokerDelivery]:
    """Give the ways to every service, also to one that hears nothing: an older relay may have left events for it."""
    assert settings.token is not None
    deliveries: dict[str, HttpDelivery | BrokerDelivery] = {
        name: HttpDelivery(source, name, url, settings.token) for name, url in settings.urls.items()
    }
    if settings.rabbitmq_url is not None:
        # Here, because without a broker nobody needs to wait for pika to be read.
        from servicekit.events.broker_delivery import BrokerDelivery

        deliveries[BROKER] = BrokerDelivery(source, settings.rabbitmq_url)
    return deliveries
