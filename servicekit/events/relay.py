"""The relay of one service: takes events from its outbox and delivers them until each is acknowledged.

docs/events.md describes the protocol. Any number of relays of a service may run; the one that holds the advisory lock
of its database is active, the others stand by. A moment with two active ones does no harm: receivers recognise an event
by its id.

`Relay` spreads each event into one delivery per destination that receives its type, and prunes. A new destination or
type gets no past events: only `deliver_again` sends those still kept. A `Courier` for each destination sends what
waits, in order, through a `Deliver`: over HTTP to a service, or to a broker.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from servicekit.events.cloudevents import LARGEST_BATCH, Event
from servicekit.events.relay_metrics import RelayMetrics
from servicekit.events.relay_store import AT_ONCE, MEMORIES, OUTBOX, ActiveLock, Backlog, Hears, RelayStore, Waiting
from servicekit.observing.logs import get_logger
from servicekit.process.backoff import Backoff
from servicekit.process.lifecycle import Duty
from servicekit.wire.errors import BadGateway, DeadlineExceeded, Unavailable

#: How long ids of processed events and idempotency keys are remembered. Duplicates usually come within seconds.
REMEMBER_DAYS = 30.0
_PRUNE_SECONDS = 60.0
_MEASURE_SECONDS = 5.0
# How often a courier checks for held subjects that are due; new events wake it.
_COURIER_SECONDS = 1.0
_FIRST_PAUSE = 0.1
#: Short, because only this relay asks: a recovery is noticed within a second.
_LONGEST_PAUSE = 1.0
_log = get_logger(__name__)


class EventRefused(Exception):
    """The destination was reached and refused the events; retrying changes little.

    `final`: the answer blames the event, which is given up after some tries. Otherwise the fault is the destination's,
    and the event waits until it is repaired.
    """

    def __init__(self, reason: str, *, final: bool) -> None:
        super().__init__(reason)
        self.final = final


class Deliver(Protocol):
    """Brings a batch to one destination, whole or not at all, and returns when it is acknowledged."""

    def __call__(self, events: Sequence[Event]) -> None:
        """Raise `EventRefused`, or `Unavailable`, `BadGateway` or `DeadlineExceeded` for an unreachable destination."""


class Courier(Duty):
    """Delivers to one destination, in order. What it cannot deliver does not hold up other destinations."""

    def __init__(
        self,
        source: str,
        destination: str,
        deliver: Deliver,
        *,
        store: RelayStore,
        may_deliver: Callable[[], bool],
        metrics: RelayMetrics,
        on_death: Callable[[], None],
    ) -> None:
        super().__init__(
            f"courier from {source} to {destination}", pause=lambda: self._pause_seconds, on_death=on_death
        )
        self.destination = destination
        self._who = {"source": source, "destination": destination}
        self._deliver = deliver
        self._store = store
        self._may_deliver = may_deliver
        self._metrics = metrics
        self._size = LARGEST_BATCH
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._pause_seconds = 0.0

    def run_once(self, now: datetime) -> None:
        """Deliver a batch."""
        try:
            self._pause_seconds = self._work()
        except (Unavailable, BadGateway, DeadlineExceeded) as exc:
            self._pause_seconds = self._backoff.next()
            self._metrics.failed(**self._who)
            if self._backoff.failures == 1:
                _log.warning("destination_away", **self._who, code=exc.code, cause=repr(exc.__cause__)[:300])
        else:
            if self._backoff.failures:
                _log.info("destination_back", **self._who, failures=self._backoff.failures)
            self._backoff.reset()

    def _work(self) -> float:
        """Return the seconds until the next run; 0 while there is more."""
        if not self._may_deliver():
            return _COURIER_SECONDS
        batch = self._store.waiting(self.destination, self._size)
        if not batch:
            return _COURIER_SECONDS
        try:
            self._deliver([item.event for item in batch])
        except EventRefused as refused:
            if len(batch) > 1:
                # The answer does not say which event was refused: sent alone, it will show.
                self._size = 1
            else:
                self._put_aside(batch[0], refused)
            return 0.0
        self._store.acknowledge(self.destination, [item.position for item in batch])
        self._size = min(self._size * 2, LARGEST_BATCH)
        moment = datetime.now(UTC)
        for item in batch:
            self._metrics.delivered(**self._who, seconds=(moment - item.event.time).total_seconds())
        return 0.0

    def _put_aside(self, item: Waiting, refused: EventRefused) -> None:
        given_up = self._store.hold(self.destination, item.position, str(refused), final=refused.final)
        self._metrics.refused(**self._who)
        refusal = {
            **self._who,
            "event_type": item.event.type,
            "event_id": str(item.event.id),
            "subject": str(item.event.subject),
            "reason": str(refused)[:500],
        }
        if given_up:
            _log.error("event_given_up", **refusal)
        else:
            _log.warning("event_refused", **refusal)


class Relay(Duty):
    """Holds or awaits the lock of a service's active relay, spreads the new events, and prunes."""

    def __init__(
        self,
        source: str,
        *,
        store: RelayStore,
        lock: ActiveLock,
        deliveries: Mapping[str, Deliver],
        hears: Hears,
        poll_seconds: float = 0.2,
        keep_seconds: float,
        metrics: RelayMetrics,
        on_death: Callable[[], None],
    ) -> None:
        """`source` is the service whose events these are. New events go to the destinations in `hears`; those already
        waiting for others go to the ones in `deliveries`."""
        super().__init__(f"relay of {source}", pause=lambda: self._pause_seconds, on_death=on_death)
        self._source = source
        self._store = store
        self._lock = lock
        self._hears = hears
        self._poll_seconds = poll_seconds
        self._keep_seconds = keep_seconds
        self._metrics = metrics
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._pause_seconds = 0.0
        self._active = threading.Event()
        self._tables: Collection[str] = ()
        self._pruned_at = self._measured_at = -math.inf
        self.couriers = [
            Courier(
                source, destination, deliver, store=store, may_deliver=self._active.is_set, metrics=metrics,
                on_death=on_death,
            )
            for destination, deliver in deliveries.items()
        ]  # fmt: skip
        metrics.active(source, False)

    @property
    def is_active(self) -> bool:
        """Whether this relay delivers, rather than standing by."""
        return self._active.is_set()

    def stop(self, timeout: float | None = 5.0) -> None:
        """Stop after the batches in progress, and release the lock."""
        for courier in self.couriers:
            courier.stop(0)
        super().stop(timeout)
        for courier in self.couriers:
            courier.stop(timeout)
        self._set_active(False)
        self._lock.close()

    def run_once(self, now: datetime) -> None:
        """Check once for new events."""
        try:
            self._set_active(self._lock.hold())
            self._pause_seconds = self._work() if self.is_active else self._poll_seconds
        except (Unavailable, DeadlineExceeded) as exc:
            # Without the database there is no lock, and another relay may hold it by now.
            self._set_active(False)
            self._lock.close()
            self._pause_seconds = self._backoff.next()
            if self._backoff.failures == 1:
                _log.warning("database_away", duty=self.name, code=exc.code, cause=repr(exc.__cause__)[:300])
        else:
            if self._backoff.failures:
                _log.info("database_back", duty=self.name, failures=self._backoff.failures)
            self._backoff.reset()

    def _work(self) -> float:
        moment = time.monotonic()
        if OUTBOX not in self._tables or moment - self._pruned_at >= _PRUNE_SECONDS:
            self._tables = self._store.tables()
        spread = self._spread(moment) if OUTBOX in self._tables else 0
        if moment - self._pruned_at >= _PRUNE_SECONDS and self._prune() < AT_ONCE:
            # Otherwise prune again on the next run, so that new events never wait for it.
            self._pruned_at = moment
        return 0.0 if spread == AT_ONCE else self._poll_seconds

    def _spread(self, moment: float) -> int:
        events, destinations = self._store.spread(self._hears)
        self._set_out(destinations)
        if moment - self._measured_at >= _MEASURE_SECONDS:
            backlog = self._store.backlog()
            self._measured_at = moment
            self._metrics.measured(self._source, {**dict.fromkeys(self._hears, Backlog()), **backlog})
            self._set_out(backlog)
        return events

    def _set_out(self, destinations: Collection[str]) -> None:
        """Wake the couriers of these destinations; one without events never costs a thread."""
        for courier in self.couriers:
            if courier.destination in destinations:
                courier.start()
                courier.wake()

    def _prune(self) -> int:
        """Return the largest number of rows removed of one kind."""
        removed = [self._store.forget(memory, REMEMBER_DAYS * 86_400) for memory in MEMORIES if memory in self._tables]
        if OUTBOX in self._tables:
            dropped = self._store.drop_others([courier.destination for courier in self.couriers], self._keep_seconds)
            for destination, count in dropped.items():
                _log.warning(
                    "deliveries_dropped", source=self._source, destination=destination, count=count,
                    cause="no destination any more",
                )  # fmt: skip
            removed += [sum(dropped.values()), self._store.prune(self._keep_seconds)]
        return max(removed, default=0)

    def _set_active(self, active: bool) -> None:
        if active == self.is_active:
            return
        # Another relay may have written deliveries meanwhile.
        self._measured_at = -math.inf
        self._metrics.active(self._source, active)
        if active:
            self._active.set()
            _log.info("relay_active", source=self._source)
        else:
            self._active.clear()
            if not self.stopping:
                _log.info("relay_stands_by", source=self._source)
        for courier in self.couriers:
            courier.wake()
