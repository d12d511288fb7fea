"""RabbitMQ: connect, declare, consume, publish. The only importer of pika.

A `BrokerLink` is one connection and belongs to one thread, except for `call_soon`. Whatever ends it, on either side,
surfaces from its methods as `BrokerAway`; the caller then opens another one, after a pause.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pika
from pika import spec
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.data import decode_table
from pika.exceptions import AMQPChannelError, AMQPError, ChannelClosedByBroker, ConnectionClosedByBroker

#: In seconds: to connect, for an answer, and how long the broker may block us or owe a confirmation before the
#: connection counts as lost.
CONNECT_SECONDS = 5.0
HEARTBEAT_SECONDS = 20
BLOCKED_SECONDS = 60.0
_NOT_FOUND = 404
_PRECONDITION_FAILED = 406
_INTERNAL_ERROR = 541
_PERSISTENT = pika.DeliveryMode.Persistent


class BrokerAway(Exception):
    """The broker cannot be reached, or ended the connection."""


class QueueRefused(Exception):
    """The broker does not let us declare a queue; the text is its own."""


@dataclass(frozen=True, slots=True)
class Queue:
    """How to declare a queue that does not exist yet; an existing one is taken as it is."""

    name: str
    durable: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message to be acknowledged by its `tag`, which grows within a link.

    `message_id` and `content_encoding` are bytes if they are not UTF-8.
    """

    tag: int
    queue: str
    body: bytes
    message_id: str | bytes | None
    redelivered: bool
    content_encoding: str | bytes | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A message to be published."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str | bytes | None = None
    content_type: str | None = None
    headers: Mapping[str, Any] | None = None


class BrokerLink:
    """An open connection with one channel to consume on and one to publish on."""

    def __init__(self, url: str, *, name: str) -> None:
        """Connect; `name` appears in the broker's lists. Raises BrokerAway."""
        parameters = pika.URLParameters(url)
        parameters.socket_timeout = parameters.stack_timeout = CONNECT_SECONDS
        parameters.connection_attempts = 1
        parameters.heartbeat = HEARTBEAT_SECONDS
        parameters.blocked_connection_timeout = BLOCKED_SECONDS
        parameters.client_properties = {"connection_name": name}
        with _translated():
            self._connection = pika.BlockingConnection(parameters)
            self._consuming: BlockingChannel = self._connection.channel()
            self._publishing: BlockingChannel | None = None
        #: On the publishing channel: how many messages, the numbers of those not confirmed, whether one was refused.
        self._published = 0
        self._unconfirmed: set[int] = set()
        self._refused = False
        self._tags: list[str] = []
        self._lost_queue: str | None = None

    def exists(self, name: str) -> bool:
        with _translated():
            return self._exists(name)

    def waiting(self, queues: Sequence[str]) -> int:
        """Messages in the queues that were not delivered to any consumer."""
        with _translated():
            channel = self._connection.channel()
            counts = [channel.queue_declare(name, passive=True).method.message_count for name in queues]
            channel.close()
            return sum(counts)

    def ensure(self, queue: Queue) -> None:
        """Create the queue unless it exists; an existing one keeps its properties, which its creator chose.

        Raises QueueRefused. RabbitMQ from 4.3 on ends the whole connection over a plain queue that its configuration
        does not permit; that is a QueueRefused too, and the link is lost with it.
        """
        with _translated():
            if self._exists(queue.name):
                return
            channel = self._connection.channel()
            try:
                channel.queue_declare(queue.name, durable=queue.durable, arguments=dict(queue.arguments) or None)
                channel.close()
            except ChannelClosedByBroker as error:
                # Another client may just have created it, with other properties.
                if error.reply_code != _PRECONDITION_FAILED or not self._exists(queue.name):
                    raise QueueRefused(f"{queue.name}: {error.reply_text}") from error
            except ConnectionClosedByBroker as error:
                if error.reply_code == _INTERNAL_ERROR:
                    raise QueueRefused(f"{queue.name}: {error.reply_text}") from error
                raise

    def ensure_exchange(self, name: str, kind: str) -> None:
        """Create a durable exchange unless it exists. Raises QueueRefused if one of this name differs."""
        with _translated():
            channel = self._connection.channel()
            try:
                channel.exchange_declare(name, kind, durable=True)
                channel.close()
            except ChannelClosedByBroker as error:
                raise QueueRefused(f"{name}: {error.reply_text}") from error

    def bind(self, queue: str, exchange: str, routing_key: str = "") -> None:
        with _translated():
            self._consuming.queue_bind(queue, exchange, routing_key)

    def consume(self, queues: Sequence[str], take: Callable[[Delivery], None], *, prefetch: int) -> None:
        """Have `process` call `take` for each message; at most `prefetch` per queue are unacknowledged."""
        with _translated():
            self._consuming.add_on_cancel_callback(self._cancelled)
            self._consuming.basic_qos(prefetch_count=prefetch)
            for queue in queues:
                self._tags.append(self._consuming.basic_consume(queue, _taker(queue, take)))

    def stop_consuming(self) -> None:
        """Get no more messages; those received may still be acknowledged."""
        with _translated():
            tags, self._tags = self._tags, []
            for tag in tags:
                self._consuming.basic_cancel(tag)

    def process(self, seconds: float) -> None:
        """Receive messages and keep the connection alive for so long, or until `call_soon` called something."""
        with _translated():
            self._connection.process_data_events(time_limit=seconds)
        if self._lost_queue is not None:
            raise BrokerAway("a queue that we consume was deleted")

    def acknowledge(self, tag: int, *, alone: bool = False) -> None:
        """Acknowledge all messages up to this one, or this one `alone`."""
        with _translated():
            self._consuming.basic_ack(tag, multiple=not alone)

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish persistent messages and wait until the broker has confirmed all of them.

        Raises BrokerAway when it does not; then each of them may have arrived or not.
        """
        with _translated():
            channel = self._publishing
            if channel is None or channel.is_closed:
                channel = self._publishing = self._connection.channel()
                self._confirm_on(channel)
            # Through the channel beneath: pika's own publishes one message and waits, without a limit. A broker may be
            # healthy except for one queue: RabbitMQ never confirms messages for a quorum queue without a leader.
            for message in messages:
                properties = pika.BasicProperties(
                    delivery_mode=_PERSISTENT,
                    message_id=message.message_id,
                    content_type=message.content_type,
                    headers=dict(message.headers) if message.headers else None,
                )
                self._published += 1
                self._unconfirmed.add(self._published)
                channel._impl.basic_publish(message.exchange, message.routing_key, message.body, properties)
            loop = self._connection._impl.ioloop
            limit = loop.call_later(BLOCKED_SECONDS, self._end_unconfirmed)
            try:
                channel._flush_output(lambda: not self._unconfirmed)
            finally:
                loop.remove_timeout(limit)
            if self._unconfirmed or self._refused:
                raise BrokerAway("the broker refused a message")

    def _confirm_on(self, channel: BlockingChannel) -> None:
        """Put a new channel into confirm mode (https://www.rabbitmq.com/docs/confirms)."""
        self._published, self._unconfirmed, self._refused = 0, set(), False
        selected: list[Any] = []
        channel._impl.confirm_delivery(self._note_confirmation, selected.append)
        channel._flush_output(lambda: bool(selected))

    def _note_confirmation(self, frame: Any) -> None:
        tag, multiple = frame.method.delivery_tag, frame.method.multiple
        self._refused |= isinstance(frame.method, spec.Basic.Nack)
        self._unconfirmed -= {number for number in self._unconfirmed if number <= tag} if multiple else {tag}

    def call_soon(self, function: Callable[[], None]) -> None:
        """From any thread: have `process` call `function`. Raises BrokerAway when the link has ended."""
        with _translated():
            self._connection.add_callback_threadsafe(function)

    def close(self) -> None:
        """End the connection; unacknowledged messages return to their queues."""
        with suppress(AMQPError, OSError):
            if self._connection.is_open:
                self._connection.close()

    def _end_unconfirmed(self) -> None:
        # As pika itself does when it was blocked for too long.
        self._connection._impl._terminate_stream(
            AMQPError(f"the broker has not confirmed a message within {BLOCKED_SECONDS:g} s")
        )

    def _exists(self, name: str) -> bool:
        channel = self._connection.channel()
        try:
            channel.queue_declare(name, passive=True)
        except ChannelClosedByBroker as error:
            if error.reply_code == _NOT_FOUND:
                return False
            raise
        channel.close()
        return True

    def _cancelled(self, frame: Any) -> None:
        # pika forgets the consumer and would wait in vain.
        self._lost_queue = str(frame.method.consumer_tag)


class _Properties(pika.BasicProperties):  # type: ignore[misc]  # pika has no types
    """A message's properties, decoded so that no header can make the others, or the connection, unreadable.

    A broker passes on what a producer wrote, and pika ends the connection over a table it cannot decode (a `T` in
    milliseconds is the year 50,000 and more), and again when the same message returns.
    """

    def decode(self, encoded: bytes, offset: int = 0) -> _Properties:
        try:
            plain, table = _without_headers(encoded[offset:])
            super().decode(plain)
        except (struct.error, IndexError):
            # RabbitMQ lets none of these through. The body may still be a task.
            self.__init__()  # type: ignore[misc]
            return self
        if table:
            with suppress(Exception):  # unreadable headers count as none
                self.headers = decode_table(table, 0)[0]
        return self


def _without_headers(encoded: bytes) -> tuple[bytes, bytes]:
    """Split the header table from encoded properties (AMQP 0-9-1, section 4.2.6.1)."""
    (flags,) = struct.unpack_from(">H", encoded)
    if not flags & pika.BasicProperties.FLAG_HEADERS:
        return encoded, b""
    start = 2
    for flag in (pika.BasicProperties.FLAG_CONTENT_TYPE, pika.BasicProperties.FLAG_CONTENT_ENCODING):
        if flags & flag:
            start += 1 + encoded[start]
    (size,) = struct.unpack_from(">I", encoded, start)
    end = start + 4 + size
    rest = struct.pack(">H", flags & ~pika.BasicProperties.FLAG_HEADERS) + encoded[2:start] + encoded[end:]
    return rest, encoded[start:end]


# Where pika looks up the class that decodes properties.
spec.props[pika.BasicProperties.INDEX] = _Properties


class _translated:
    """Translates pika's and the socket's errors to BrokerAway."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # pika's third class is separate: raised for a broker that accepts a connection and stays silent.
        if isinstance(error, (AMQPError, AMQPChannelError, AMQPConnectorException, OSError)):
            raise BrokerAway(str(error) or type(error).__name__) from error


def _taker(queue: str, take: Callable[[Delivery], None]) -> Callable[[Any, Any, Any, bytes], None]:
    def on_message(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
        take(
            Delivery(
                method.delivery_tag,
                queue,
                body,
                properties.message_id,
                method.redelivered,
                properties.content_encoding,
            )
        )

    return on_message
