"""Events for outside programs: each is published to a RabbitMQ topic exchange and confirmed. See docs/events.md."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from servicekit.events.broker import BrokerAway, BrokerLink, Message, QueueRefused
from servicekit.events.cloudevents import MEDIA_TYPE, Event, write_event
from servicekit.wire.envelope import dump
from servicekit.wire.errors import Unavailable

EXCHANGE = "siteworks.events"


class BrokerDelivery:
    """Publishes events in batches; an event's type is the routing key, its id the message's.

    Belongs to the thread that calls it, except for `close`.
    """

    def __init__(self, service: str, url: str) -> None:
        """`service` is the sender: the source of the events."""
        self._service = service
        self._url = url
        self._link: BrokerLink | None = None
        self._closing = threading.Lock()

    def __call__(self, events: Sequence[Event]) -> None:
        """Publish a batch; see `Deliver`. If it fails, all of it is published again, what had arrived too."""
        kept = self._link is not None
        try:
            try:
                self._publish(events)
            except BrokerAway:
                # The broker closes a connection that was silent for a minute.
                if not kept:
                    raise
                self._publish(events)
        except (BrokerAway, QueueRefused) as exc:
            self._drop()
            raise Unavailable(f"RabbitMQ takes no events at the moment: {exc}") from exc

    def close(self) -> None:
        self._drop()

    def _publish(self, events: Sequence[Event]) -> None:
        try:
            link = self._link
            if link is None:
                link = self._link = BrokerLink(self._url, name=f"{self._service}_relay")
                link.ensure_exchange(EXCHANGE, "topic")
            link.publish(
                [
                    Message(
                        EXCHANGE,
                        event.type,
                        dump(write_event(event, self._service)),
                        message_id=str(event.id),
                        content_type=MEDIA_TYPE,
                    )
                    for event in events
                ]
            )
        except BrokerAway:
            self._drop()
            raise

    def _drop(self) -> None:
        with self._closing:
            link, self._link = self._link, None
        if link is not None:
            link.close()
