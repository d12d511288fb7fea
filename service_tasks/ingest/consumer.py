"""Takes messages from the broker, writes them in batches, and acknowledges those committed.

There are two threads: the link's takes messages and keeps the connection alive, the writer's uses the database. While
one batch is written the next one gathers, so batches grow with the load, and a lone message does not wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from service_tasks.ingest.topology import DEAD_EXCHANGE, PLAIN, declare
from service_tasks.use_cases.messages import IncomingMessage, RejectedMessage
from servicekit.events.broker import BrokerAway, BrokerLink, Delivery, Message, QueueRefused
from servicekit.observing.logs import get_logger
from servicekit.process.backoff import Backoff, backoff
from servicekit.process.lifecycle import Duty
from servicekit.wire.errors import DatabaseLocked, DeadlineExceeded, Unavailable

LARGEST_BATCH = 100
#: Unacknowledged messages of each queue: several batches ahead, so that the writer never waits for the network.
PREFETCH = 1000
#: Bytes in hand above which nothing more is read from the broker: a thousand messages may have a megabyte each.
HELD_BYTES = 48 * 1024 * 1024
#: How long, in seconds, a stop waits for what is in hand to be written.
FLUSH_SECONDS = 10.0
#: Seconds until a message whose key is in another session's open transaction is tried again.
LOCKED_SECONDS = 2.0
_TURN_SECONDS = 1.0
_LAG_SECONDS = 5.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 5.0

log = get_logger(__name__)


@dataclass(slots=True)
class IngestCounts:
    """The counts of the process. Each field is written by one thread; any thread may read it."""

    connected: bool = False
    #: Why no messages are taken now, in a word; empty while they are.
    waiting_for: str = "broker"
    received: int = 0
    redelivered: int = 0
    written: int = 0
    rejected: int = 0
    reconnects: int = 0
    #: Messages in hand: received and not yet written.
    in_hand: int = 0
    #: Messages in the queues when the broker was last asked; None before that.
    waiting: int | None = None


class Batches:
    """Deliveries in transit between the two threads. A new link begins with none: those in hand are delivered
    again."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Delivery] = deque()
        #: Those that could not be written with the others, and when to try the next one.
        self._left: deque[Delivery] = deque()
        self._try_left_at = 0.0
        self._writing = 0
        self._closed = False
        #: The bytes of the bodies in hand, and of those being written.
        self._bytes = self._bytes_written = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._left) + self._writing

    def put(self, delivery: Delivery) -> None:
        with self._changed:
            self._waiting.append(delivery)
            self._bytes += len(delivery.body)
            if len(self._waiting) == 1:
                self._changed.notify()

    def take(self, most: int) -> list[Delivery]:
        """Return the oldest as soon as there are any, or a left one that is due; none once closed. They stay in hand
        until `done`."""
        with self._changed:
            while not self._closed and not self._waiting and not self._is_time_for_left:
                self._changed.wait(self._try_left_at - time.monotonic() if self._left else None)
            if self._closed:
                return []
            if self._is_time_for_left:
                taken = [self._left.popleft()]
            else:
                taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            self._writing = len(taken)
            self._bytes_written = sum(len(delivery.body) for delivery in taken)
            return taken

    def done(self, left: Sequence[Delivery] = ()) -> None:
        """Note that those taken are written, except for `left`, which are tried again later."""
        with self._changed:
            self._writing = 0
            self._bytes -= self._bytes_written - sum(len(delivery.body) for delivery in left)
            self._bytes_written = 0
            if left:
                self._left.extend(left)
                self._try_left_at = time.monotonic() + LOCKED_SECONDS
            self._changed.notify_all()

    @property
    def _is_time_for_left(self) -> bool:
        return bool(self._left) and time.monotonic() >= self._try_left_at

    @property
    def left(self) -> int:
        """How many are to be tried again later."""
        return len(self._left)

    @property
    def full(self) -> bool:
        """Whether so much is in hand that nothing more should be read."""
        return self._bytes > HELD_BYTES

    def wait_for_room(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self.full or self._closed, seconds)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class _DatabaseAway(Exception):
    """Nothing can be stored; closing the link returns the deliveries in hand to the broker."""


class Consumer(Duty):
    """Serves one link after another until stopped. `take` stores messages in one transaction and returns those that it
    rejected; `ready` raises `Unavailable` while nothing can be stored."""

    def __init__(
        self,
        *,
        open_link: Callable[[], BrokerLink],
        take: Callable[[Sequence[IncomingMessage]], Sequence[RejectedMessage]],
        ready: Callable[[], None],
        counts: IngestCounts,
        on_death: Callable[[], None],
    ) -> None:
        super().__init__("consumer", pause=lambda: self._pause_seconds, on_death=on_death)
        self._open_link = open_link
        self._take = take
        self._ready = ready
        self._counts = counts
        self._waits_for_database = self._cautious = False
        self._backoff = Backoff(0.5, 30.0)
        self._pause_seconds = 0.0
        self._plain = True
        self._link: BrokerLink | None = None

    def run_once(self, now: datetime) -> None:
        """Connect, consume until the link ends or a stop is asked for."""
        self._pause_seconds = 0.0
        if self._waits_for_database:
            try:
                self._ready()
            except (Unavailable, DeadlineExceeded):
                self._pause_seconds = _LONGEST_PAUSE_SECONDS
                return
            self._waits_for_database = False
        try:
            self._link = self._open_link()
            try:
                self._serve(self._link)
            finally:
                link, self._link = self._link, None
                link.close()
        except QueueRefused as error:
            log.error("queue_refused", cause=str(error), see="docs/messages.md#rabbitmq-310-to-4")
            if self._plain and str(error).startswith(PLAIN.name):
                self._plain = False  # the other queues go on without it
            else:
                self._pause_seconds = self._backoff.next()
        except BrokerAway as error:
            if self._counts.connected or self._counts.reconnects == 0:
                log.warning("broker_away", cause=str(error))
            self._counts.reconnects += 1
            # The broker may come back with another configuration.
            self._plain = True
            self._pause_seconds = self._backoff.next()
        except _DatabaseAway:
            self._waits_for_database = self._cautious = True
        finally:
            self._counts.connected = False
            self._counts.waiting_for = "database" if self._waits_for_database else "broker"

    def stop(self, timeout: float | None = FLUSH_SECONDS + 5) -> None:
        """Stop taking messages, write and acknowledge those in hand, and end."""
        self._stopping.set()
        self._interrupt()
        super().stop(timeout)

    def _interrupt(self) -> None:
        link = self._link
        if link is not None:
            try:
                link.call_soon(lambda: None)
            except BrokerAway:
                return

    def _serve(self, link: BrokerLink) -> None:
        queues = declare(link, plain=self._plain)
        batches = Batches()
        writer = _Writer(link, batches, self._take, self._counts)

        def received(delivery: Delivery) -> None:
            self._counts.received += 1
            self._counts.redelivered += delivery.redelivered
            batches.put(delivery)

        writer.start()
        try:
            link.consume(queues, received, prefetch=1 if self._cautious else PREFETCH)
            self._counts.connected = True
            self._counts.waiting_for = ""
            self._backoff.reset()
            log.info("consuming", queues=list(queues))
            asked_at, written = 0.0, self._counts.written
            while not self.stopping:
                # Unread messages wait at the broker, which sends no more than the network's buffers hold.
                if batches.wait_for_room(_TURN_SECONDS):
                    link.process(_TURN_SECONDS)
                self._follow(writer)
                if self._cautious and (self._counts.written > written or batches.left):
                    self._cautious = False
                    link.stop_consuming()
                    link.consume(queues, received, prefetch=PREFETCH)
                self._counts.in_hand = len(batches)
                if time.monotonic() - asked_at > _LAG_SECONDS:
                    asked_at = time.monotonic()
                    self._counts.waiting = link.waiting(queues)
            if not batches.full:
                link.stop_consuming()
            self._flush(link, batches)
        finally:
            batches.close()
            writer.stop()
            self._counts.in_hand = 0

    def _follow(self, writer: _Writer) -> None:
        """Consume nothing while the database is away: other consumers may work, and nothing piles up here.

        Cancelling would read all messages in flight, perhaps a thousand, so the link is closed. The next one begins
        with a single message, kept until it is written: if the database answers but cannot store anything, the others
        are not redelivered until the broker takes them for poison.
        """
        if writer.died:
            raise RuntimeError("the writer has died")
        if writer.away and not self._cautious:
            raise _DatabaseAway
        self._counts.waiting_for = "database" if writer.away else ""

    def _flush(self, link: BrokerLink, batches: Batches) -> None:
        # This thread sends the acknowledgements, so it keeps turning while the writer works.
        turns = int(FLUSH_SECONDS / 0.1)
        while len(batches) and turns:
            link.process(0.1)
            turns -= 1
        link.process(0)


class _Writer(Duty):
    """Stores batches, in the order of their tags, and has each acknowledged once it is committed.

    A message whose key is in another session's open transaction is tried again later; the others go on.
    """

    def __init__(
        self,
        link: BrokerLink,
        batches: Batches,
        take: Callable[[Sequence[IncomingMessage]], Sequence[RejectedMessage]],
        counts: IngestCounts,
    ) -> None:
        super().__init__("writer", pause=lambda: self._pause_seconds, on_death=self._has_died)
        self._link = link
        self._batches = batches
        self._take = take
        self._counts = counts
        self._batch: list[Delivery] = []
        self._pause_seconds = 0.0
        self._failures = 0
        self._has_left = False
        self.died = False

    @property
    def away(self) -> bool:
        """Whether the database could not be reached at the last attempt."""
        return self._failures > 0

    def run_once(self, now: datetime) -> None:
        if not self._batch:
            self._batch = self._batches.take(LARGEST_BATCH)
        if not self._batch:
            return
        try:
            rejected, left = self._store(self._batch)
        except (Unavailable, DeadlineExceeded) as error:
            if not self._failures:
                log.warning("database_away", cause=repr(error.__cause__)[:300], in_hand=len(self._batches))
            self._pause_seconds = backoff(self._failures + 1, _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
            self._failures += 1
            self._tell(lambda: None)
            return
        if self._failures:
            log.info("database_back", failures=self._failures)
        self._failures, self._pause_seconds = 0, 0.0
        self._counts.written += len(self._batch) - len(left)
        self._counts.rejected += len(rejected)
        if left and not self._has_left:
            log.warning("message_locked", source=left[0].queue)
        bodies = {delivery.tag: delivery for delivery in self._batch}
        for delivery in left:
            del bodies[delivery.tag]
        tags = list(bodies)
        copies = [(one, bodies.pop(one.tag)) for one in rejected]
        self._batch = []
        # With others left, not every message up to a tag is written.
        alone = self._has_left = bool(left) or self._batches.left > 0
        self._tell(lambda: self._acknowledge(tags if alone else tags[-1:], alone, copies))
        self._batches.done(left)

    def _store(self, batch: list[Delivery]) -> tuple[list[RejectedMessage], list[Delivery]]:
        """Return the rejections, and the deliveries to try again later."""
        try:
            return list(self._take([_incoming(delivery) for delivery in batch])), []
        except DatabaseLocked:
            if len(batch) == 1:
                return [], batch
        half = len(batch) // 2
        (rejected, left), (more_rejected, more_left) = self._store(batch[:half]), self._store(batch[half:])
        return rejected + more_rejected, left + more_left

    def _acknowledge(
        self, tags: Sequence[int], alone: bool, rejected: Sequence[tuple[RejectedMessage, Delivery]]
    ) -> None:
        """Runs on the link's thread. The table already has every rejected message; the published one is a copy."""
        if rejected:
            self._link.publish([_copy(reason, delivery) for reason, delivery in rejected])
        for tag in tags:
            self._link.acknowledge(tag, alone=alone)

    def _tell(self, function: Callable[[], None]) -> None:
        try:
            self._link.call_soon(function)
        except BrokerAway:
            # Its messages are delivered again, and those with an id are recognised.
            return

    def _has_died(self) -> None:
        self.died = True
        self._tell(lambda: None)


def _copy(reason: RejectedMessage, delivery: Delivery) -> Message:
    return Message(
        DEAD_EXCHANGE,
        delivery.queue,
        delivery.body,
        message_id=delivery.message_id,
        headers={"x-rejected-id": str(reason.id), "x-rejected-reason": reason.reason},
    )


def _incoming(delivery: Delivery) -> IncomingMessage:
    return IncomingMessage(
        tag=delivery.tag,
        source=delivery.queue,
        message_id=delivery.message_id,
        body=delivery.body,
        encoding=delivery.content_encoding,
    )
