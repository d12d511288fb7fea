"""Events for programs outside, on a real RabbitMQ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pika
import pytest

from servicekit.events import outbox
from servicekit.events.broker import BrokerAway, BrokerLink, Message, Queue
from servicekit.events.broker_delivery import EXCHANGE, BrokerDelivery
from servicekit.events.cloudevents import write_event
from servicekit.wire.errors import Unavailable
from tests.support.events import TOKEN, user_deleted
from tests.support.ports import free_ports
from tests.support.rabbitmq import PrivateBroker
from tests.support.waiting import eventually

pytestmark = pytest.mark.big

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def broker(tmp_path_factory) -> Iterator[PrivateBroker]:
    broker = PrivateBroker(tmp_path_factory.mktemp("rabbitmq") / "broker")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def deliver(broker) -> Iterator[BrokerDelivery]:
    made = BrokerDelivery("users", broker.url)
    yield made
    made.close()


class Listener:
    """A program outside that hears of some types of events."""

    def __init__(self, broker: PrivateBroker, types: str) -> None:
        self._broker = broker
        self._queue = f"listener {uuid4()}"
        with broker.connect() as connection:
            channel = connection.channel()
            channel.exchange_declare(EXCHANGE, "topic", durable=True)
            channel.queue_declare(self._queue, durable=True)
            channel.queue_bind(self._queue, EXCHANGE, types)
        # RabbitMQ confirms a binding before it writes it down; killed in between, it comes back without it.
        broker.control("eval", "mnesia:sync_log().")

    def heard(self) -> list[tuple[pika.BasicProperties, bytes]]:
        with self._broker.connect() as connection:
            channel = connection.channel()
            found = []
            while (message := channel.basic_get(self._queue, auto_ack=True))[0] is not None:
                found.append(message[1:])
            return found


def test_an_event_is_a_lasting_message_in_the_form_of_cloudevents_for_whoever_bound_its_type(broker, deliver):
    everything, orders = Listener(broker, "#"), Listener(broker, "order.*")
    events = [user_deleted(uuid4()), user_deleted(uuid4(), type="user.updated")]

    deliver(events)

    heard = everything.heard()
    assert [json.loads(body) for _, body in heard] == [write_event(event, "users") for event in events]
    assert [properties.message_id for properties, _ in heard] == [str(event.id) for event in events]
    assert {(p.content_type, p.delivery_mode) for p, _ in heard} == {("application/cloudevents+json", 2)}
    assert orders.heard() == []


def test_a_connection_that_the_broker_has_ended_meanwhile_costs_nothing(broker, deliver):
    listener = Listener(broker, "user.deleted")
    deliver([user_deleted(uuid4())])
    broker.control("close_all_connections", "idle")

    deliver([user_deleted(uuid4())])

    assert len(listener.heard()) == 2


def test_a_broker_that_is_away_is_a_destination_that_is_away_and_comes_back(broker, deliver):
    listener = Listener(broker, "user.deleted")
    deliver([user_deleted(uuid4())])
    broker.kill()

    with pytest.raises(Unavailable):
        deliver([user_deleted(uuid4())])
    broker.start()
    deliver([user_deleted(uuid4())])

    assert len(listener.heard()) == 2


def test_a_batch_in_whose_middle_the_broker_dies_has_not_arrived_and_comes_whole(broker, deliver, monkeypatch):
    listener = Listener(broker, "user.deleted")
    events = [user_deleted(uuid4()) for _ in range(100)]
    publish = BrokerLink.publish

    def publish_half(link, messages):
        def dying():
            yield from messages[:50]
            link.process(0.2)
            broker.kill()
            yield from messages[50:]

        publish(link, dying())

    with monkeypatch.context() as patch:
        patch.setattr(BrokerLink, "publish", publish_half)
        with pytest.raises(Unavailable):
            deliver(events)
    broker.start()
    deliver(events)

    heard = [properties.message_id for properties, _ in listener.heard()]
    assert heard[-100:] == [str(event.id) for event in events]
    assert heard[:-100] == heard[-100:][: len(heard) - 100]


def test_a_confirmation_that_does_not_come_is_a_broker_that_is_away(broker, monkeypatch):
    with closing(BrokerLink(broker.url, name="test")) as link:
        link.ensure(Queue("silent"))
        link.publish([Message("", "silent", b"confirmed")])
        with monkeypatch.context() as patch:
            patch.setattr("servicekit.events.broker.BLOCKED_SECONDS", 0.5)
            with broker.frozen(), pytest.raises(BrokerAway, match=r"not confirmed a message within 0\.5 s"):
                link.publish([Message("", "silent", b"never")])

    # However long the broker takes to come to itself.
    with closing(BrokerLink(broker.url, name="test")) as again:
        again.publish([Message("", "silent", b"confirmed again")])


def test_a_relay_with_a_broker_publishes_every_event_whatever_the_services_do(broker, users_database):
    listener = Listener(broker, "user.*")
    port = free_ports(2)
    relay = subprocess.Popen(
        [sys.executable, "-m", "servicekit.events", "relay", "users"],
        cwd=CHECKOUT,
        env={
            "PATH": os.environ["PATH"],
            "INTERNAL_TOKEN": TOKEN,
            "LOG_LEVEL": "error",
            "USERS_DATABASE_URL": users_database.url,
            "RELAY_BIND": f"127.0.0.1:{port}",
            # Nobody is there.
            "ORDERS_URL": f"http://127.0.0.1:{port + 1}",
            "TASKS_URL": f"http://127.0.0.1:{port + 1}",
            "RABBITMQ_URL": broker.url,
        },
    )
    events = [user_deleted(uuid4(), type="user.updated") for _ in range(250)]
    try:
        with users_database.database.transaction() as session:
            outbox.add_all(session, events)
        heard: list[str] = []

        def everything() -> bool:
            heard.extend(properties.message_id for properties, _ in listener.heard())
            return len(heard) >= len(events)

        eventually(everything, timeout=30, what="every event")
    finally:
        relay.terminate()
        assert relay.wait(20) == 0
    assert heard == [str(event.id) for event in events]
