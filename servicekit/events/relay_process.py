"""The relay process: one relay for each service, their HTTP calls, the process's pages and its end."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from servicekit.circuits import Circuit, CircuitSettings
from servicekit.database.engine import Database
from servicekit.events.cloudevents import BATCH_MEDIA_TYPE, PATH, Event, write_batch
from servicekit.events.relay import EventRefused, Relay
from servicekit.events.relay_metrics import RelayMetrics
from servicekit.events.relay_settings import PROCESS, RelaySettings
from servicekit.events.relay_store import OUTBOX, ActiveLock, RelayStore
from servicekit.http_client import ServiceClient
from servicekit.observing import logs
from servicekit.observing.logs import get_logger
from servicekit.observing.metrics import Metrics
from servicekit.process.lifecycle import freeze_heap, next_order, stop_orders
from servicekit.process.services import services
from servicekit.web.pages import serve_pages
from servicekit.wire.errors import Unavailable

if TYPE_CHECKING:
    from servicekit.events.broker_delivery import BrokerDelivery

#: The destination that is not a service.
BROKER = "rabbitmq"
#: The whole call for a batch, in seconds: the other side stores it in one transaction.
TOTAL_SECONDS = 10.0
# Per service: one connection to read and write, and a second lest a slow statement delay the others. A courier needs
# one only briefly, and the lock's leaves the pool.
_POOL_SIZE = 2
# A relay calls a destination one request at a time, and no client waits for it: a short pause is enough, and soon
# notices a recovery.
_CIRCUIT = CircuitSettings(open_seconds=0.5, open_seconds_max=1.0, slow_seconds=TOTAL_SECONDS)
# Statuses that blame the event, not the destination or the way to it.
_ABOUT_THE_EVENT = frozenset({400, 409, 413, 415, 422})
_OWN_FAULT = 500
_log = get_logger(__name__)


class DestinationUnavailable(Unavailable):
    """The destination of events cannot be reached at the moment."""


class HttpDelivery:
    """Posts batches to a service's inbox."""

    def __init__(self, service: str, destination: str, url: str, token: str) -> None:
        """`service` is the sender: the source of the events."""
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
        """Send a batch; see `Deliver`."""
        answer = self._client.post(PATH, write_batch(events, self._service), self._headers)
        if answer.code is None:
            return
        reason = f"{answer.status} {answer.code}: {answer.message}"
        if answer.status in _ABOUT_THE_EVENT or answer.status == _OWN_FAULT:
            raise EventRefused(reason, final=answer.status != _OWN_FAULT)
        # A wrong token, an older service without an inbox: not the event's fault, and nothing is lost.
        raise DestinationUnavailable(reason)

    def close(self) -> None:
        self._client.close()


def run_relays(settings: RelaySettings, names: Collection[str]) -> int:
    """Deliver the events of these services until SIGTERM or SIGINT; returns the exit status.

    With RABBITMQ_URL the broker is one more destination. Each service has its own database, lock, couriers and HTTP
    calls, so that none waits for another.
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
        freeze_heap()
        for relay in relays:
            relay.start()
        _log.info("relay_started", sources=list(databases))
        next_order(stopping)
        # In parallel: each may have a batch in progress.
        with ThreadPoolExecutor(len(relays)) as pool:
            list(pool.map(lambda relay: relay.stop(timeout=TOTAL_SECONDS + 1), relays))
        pages.shutdown()
    _log.info("relay_stopped")
    return 1 if died.is_set() else 0


def redeliver(database_url: str, *, everything: bool = False) -> int:
    """Make events that were given up wait again, and with `everything` deliver all that are kept once more to the
    services that receive their types; returns the number of deliveries."""
    # No time limit: only the command's user waits for it.
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
    """Deliveries for every service, even one that receives nothing now: an older relay may have left events for it."""
    assert settings.token is not None
    deliveries: dict[str, HttpDelivery | BrokerDelivery] = {
        name: HttpDelivery(source, name, url, settings.token) for name, url in settings.urls.items()
    }
    if settings.rabbitmq_url is not None:
        # Imported here, because without a broker pika need not be loaded.
        from servicekit.events.broker_delivery import BrokerDelivery

        deliveries[BROKER] = BrokerDelivery(source, settings.rabbitmq_url)
    return deliveries
