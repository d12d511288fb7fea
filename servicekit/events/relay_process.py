"""The process around a relay: its calls to the other services, its pages and its end."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from servicekit.circuits import Circuit, CircuitSettings
from servicekit.database.engine import Database
from servicekit.events.cloudevents import BATCH_MEDIA_TYPE, PATH, Event, write_batch
from servicekit.events.relay import ActiveLock, EventRefused, Relay, RelayStore
from servicekit.events.relay_metrics import RelayMetrics
from servicekit.http_client import ServiceClient
from servicekit.observing import logs
from servicekit.observing.logs import get_logger
from servicekit.observing.metrics import Metrics
from servicekit.process.lifecycle import next_order, stop_orders
from servicekit.process.settings import RelaySettings
from servicekit.web.pages import serve_pages
from servicekit.wire.errors import Unavailable

if TYPE_CHECKING:
    from servicekit.events.broker_delivery import BrokerDelivery

#: The destination that is no service.
BROKER = "rabbitmq"
#: One batch's whole call, in seconds: the other side stores it in one transaction.
TOTAL_SECONDS = 10.0
# A relay asks a destination once at a time, and nobody waits for it: a short pause is enough, and finds soon what is
# back.
_CIRCUIT = CircuitSettings(open_seconds=0.5, open_seconds_max=1.0, slow_seconds=TOTAL_SECONDS)
# Blames the event, and not the destination or what lies between.
_ABOUT_THE_EVENT = frozenset({400, 409, 413, 415, 422})
_OWN_FAULT = 500
_log = get_logger(__name__)


class DestinationUnavailable(Unavailable):
    """The destination of events cannot be reached at the moment."""


class HttpDelivery:
    """Posts batches to another service's internal door."""

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
        # A wrong token, an older service without the door: no event is to blame, and none is lost.
        raise DestinationUnavailable(reason)

    def close(self) -> None:
        """Close the kept connection."""
        self._client.close()


def run_relay(
    service: str,
    settings: RelaySettings,
    *,
    database_url: str,
    bind: str,
    destinations: Mapping[str, str],
    remembers: Sequence[str],
) -> int:
    """Deliver the events of `service` (users, orders or tasks) until SIGTERM or SIGINT; gives the exit status.

    With RABBITMQ_URL the broker is one destination more. `destinations` maps names to addresses;
    `remembers` names those of `relay.MEMORIES` that the service has.
    """
    name = f"{service}_relay"
    logs.configure(name, fmt=settings.log_format, level=settings.log_level)
    token = settings.token
    assert token is not None
    clients: dict[str, HttpDelivery | BrokerDelivery] = {
        to: HttpDelivery(service, to, url, token) for to, url in destinations.items()
    }
    if settings.rabbitmq_url is not None:
        # Here, because without a broker nobody needs to wait for pika to be read.
        from servicekit.events.broker_delivery import BrokerDelivery

        clients[BROKER] = BrokerDelivery(service, settings.rabbitmq_url)
    # One for each courier, one for the relay, one for the pages, and one that leaves the pool with the lock.
    database = Database(database_url, application_name=name, pool_size=len(clients) + 3)
    metrics = Metrics(name)
    died = threading.Event()
    stopping = stop_orders()

    def on_death() -> None:
        died.set()
        stopping.put(None)

    relay = Relay(
        store=RelayStore(database),
        lock=ActiveLock(database),
        deliveries=clients,
        keep_seconds=settings.relay_keep_days * 86_400,
        remembers=remembers,
        metrics=RelayMetrics(metrics.registry),
        on_death=on_death,
    )
    checks = {"database": partial(database.ping, writing=True)}
    pages = serve_pages(name, bind, checks, metrics, allowed_hosts=settings.allowed_hosts)
    relay.start()
    _log.info("relay_started", destinations=sorted(clients))
    next_order(stopping)
    relay.stop(timeout=TOTAL_SECONDS + 1)
    pages.shutdown()
    for client in clients.values():
        client.close()
    database.dispose()
    _log.info("relay_stopped")
    return 1 if died.is_set() else 0


def redeliver(database_url: str, service: str, *, again_to: Collection[str] = ()) -> int:
    """Let events that were given up wait anew, and go `again_to` these whatever was kept; gives how many deliveries."""
    name = f"{service}_relay redeliver"
    # However many there are: nobody waits for it but who asked.
    database = Database(database_url, application_name=name, pool_size=1, statement_timeout_ms=0)
    try:
        store = RelayStore(database)
        return store.redeliver() + store.deliver_again(list(again_to))
    finally:
        database.dispose()
