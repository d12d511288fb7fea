"""The relay of one service: takes events from its outbox and delivers them until each is acknowledged.

docs/events.md tells the protocol. Any number of relays of a service may run; the one that holds the advisory lock of
its database is active, the others stand by. Nothing depends on there being only one for a moment: receivers know an
event by its id.

`Relay` spreads each event into one delivery for every destination, and prunes. A `Courier` for every destination
sends what waits, in order, and is alone in knowing how: `Deliver` is the seam at which another kind of destination
than a service's HTTP door is put in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import psycopg2
from psycopg2.errors import UndefinedTable
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session

from servicekit.database.engine import Database
from servicekit.events.cloudevents import LARGEST_BATCH, Event
from servicekit.events.relay_metrics import RelayMetrics
from servicekit.observing.logs import get_logger
from servicekit.process.backoff import Backoff, jittered
from servicekit.process.lifecycle import Duty
from servicekit.wire.errors import BadGateway, DatabaseUnavailable, DeadlineExceeded, Unavailable

#: Refusals after which an event is given up for that destination, and kept with the reason.
REFUSALS = 5
#: How long ids of processed events and idempotency keys are remembered. A second one comes within seconds as a rule.
REMEMBER_DAYS = 30.0
#: What a service may remember, and since when.
MEMORIES = {"processed_events": "processed_at", "idempotency_keys": "created_at"}
_SPREAD_AT_ONCE = 1000
_PRUNE_AT_ONCE = 1000
_PRUNE_SECONDS = 60.0
_MEASURE_SECONDS = 5.0
# How often a courier looks by itself, for subjects whose time has come; new events wake it.
_COURIER_SECONDS = 1.0
_FIRST_PAUSE = 0.1
#: Short, because nobody but this one relay asks: what is back is found within a second.
_LONGEST_PAUSE = 0.8
_FIRST_HOLD = 1.0
_LONGEST_HOLD = 60.0
# Any number will do as long as every relay of a database takes the same; migrations take another.
_LOCK_KEY = 0x517E_0002
_log = get_logger(__name__)

# An event and its deliveries in one transaction. Of two events of a subject the earlier has the lower position and is
# visible whenever the later is, so it is never spread after it.
_SPREAD = """
WITH fresh AS MATERIALIZED (
    SELECT o.position FROM outbox o WHERE NOT o.spread ORDER BY o.position LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), done AS (
    UPDATE outbox o SET spread = true FROM fresh WHERE o.position = fresh.position RETURNING o.position, o.subject
), made AS (
    INSERT INTO outbox_deliveries (position, destination, subject)
    SELECT done.position, d.destination, done.subject
    FROM done CROSS JOIN unnest(%(destinations)s::text[]) AS d(destination)
)
SELECT count(*) FROM done
"""

# What may go now, lowest positions first. A subject that was refused is held until its time: it and all later events
# of it are passed over, and everybody else's go on. An event given up holds nobody.
_WAITING = """
SELECT d.position, o.id, o.type, o.subject, o."time", o.data
FROM outbox_deliveries d JOIN outbox o ON o.position = d.position
WHERE d.destination = %(destination)s AND d.refused_at IS NULL
  AND NOT EXISTS (
      SELECT FROM outbox_deliveries h
      WHERE h.destination = d.destination AND h.subject = d.subject AND h.due_at > now() AND h.refused_at IS NULL
        AND h.position <= d.position)
ORDER BY d.position LIMIT %(limit)s
"""

_ACKNOWLEDGE = """
DELETE FROM outbox_deliveries WHERE destination = %(destination)s AND position = ANY (%(positions)s::bigint[])
"""

_HOLD = """
UPDATE outbox_deliveries
SET refusals = least(refusals + 1, 1000), reason = left(%(reason)s, 2000),
    due_at = now() + make_interval(secs => least(%(first)s * 2.0 ^ least(refusals, 20), %(longest)s) * %(jitter)s),
    refused_at = CASE WHEN %(give_up)s AND refusals + 1 >= %(most)s THEN now() END
WHERE destination = %(destination)s AND position = %(position)s AND refused_at IS NULL
RETURNING refused_at IS NOT NULL
"""

_REDELIVER = """
UPDATE outbox_deliveries SET refused_at = NULL, due_at = NULL, refusals = 0 WHERE refused_at IS NOT NULL
"""

# Those that were not spread yet will have their deliveries anyway.
_DELIVER_AGAIN = """
INSERT INTO outbox_deliveries (position, destination, subject)
SELECT o.position, d.destination, o.subject FROM outbox o CROSS JOIN unnest(%(destinations)s::text[]) AS d(destination)
WHERE o.spread ON CONFLICT DO NOTHING
"""

_PRUNE = """
WITH old AS MATERIALIZED (
    SELECT o.position FROM outbox o
    WHERE o.spread AND o."time" < now() - make_interval(secs => %(keep)s)
      AND NOT EXISTS (SELECT FROM outbox_deliveries d WHERE d.position = o.position)
    ORDER BY o.position LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM outbox o USING old WHERE o.position = old.position
"""

# For who is no destination any more, and could become one again: the broker, once it is configured anew. Until then
# they keep their events, and what those tell of people, from being removed.
_DROP = """
WITH old AS MATERIALIZED (
    SELECT d.position, d.destination FROM outbox_deliveries d JOIN outbox o ON o.position = d.position
    WHERE d.destination <> ALL (%(destinations)s::text[])
      AND o."time" < now() - make_interval(secs => %(keep)s)
    ORDER BY d.position LIMIT %(limit)s FOR UPDATE OF d SKIP LOCKED
), dropped AS (
    DELETE FROM outbox_deliveries d USING old
    WHERE d.position = old.position AND d.destination = old.destination RETURNING d.destination
)
SELECT destination, count(*) FROM dropped GROUP BY destination
"""

_FORGET = {
    table: f"""
WITH old AS MATERIALIZED (
    SELECT m.ctid FROM {table} m WHERE m.{since} < now() - make_interval(secs => %(keep)s)
    ORDER BY m.{since} LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM {table} m USING old WHERE m.ctid = old.ctid
"""
    for table, since in MEMORIES.items()
}

# The oldest by position: near enough to the oldest by time, without a join of everything.
_BACKLOG = """
SELECT b.destination, b.waiting, b.given_up, coalesce(extract(epoch FROM now() - o."time"), 0)::float8
FROM (
    SELECT d.destination, count(*) FILTER (WHERE d.refused_at IS NULL) AS waiting,
           count(*) FILTER (WHERE d.refused_at IS NOT NULL) AS given_up,
           min(d.position) FILTER (WHERE d.refused_at IS NULL) AS oldest
    FROM outbox_deliveries d GROUP BY d.destination
) b LEFT JOIN outbox o ON o.position = b.oldest
"""


class EventRefused(Exception):
    """The destination was reached and will not have this; trying again changes little.

    `final`: its answer blames the event, so that after some tries it is given up. Otherwise it is the destination's
    own fault, and the event waits for it to be mended.
    """

    def __init__(self, reason: str, *, final: bool) -> None:
        super().__init__(reason)
        self.final = final


class Deliver(Protocol):
    """Brings a batch to one destination, whole or not at all, and returns when it is acknowledged."""

    def __call__(self, events: Sequence[Event]) -> None:
        """Raise `EventRefused`, or `Unavailable`, `BadGateway` or `DeadlineExceeded` for a destination that is away."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One delivery that may go now."""

    position: int
    event: Event


class RelayStore:
    """The outbox as the relay sees it. Every method is one transaction; `DatabaseUnavailable` when there is none."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def spread(self, destinations: Sequence[str]) -> int:
        """Write down the deliveries of new events; give how many events there were."""
        ((count,),) = self._rows(_SPREAD, limit=_SPREAD_AT_ONCE, destinations=list(destinations))
        return int(count)

    def waiting(self, destination: str, limit: int) -> list[Waiting]:
        """Give what may go to a destination now, in order."""
        return [
            Waiting(row[0], Event(id=row[1], type=row[2], subject=row[3], time=row[4], data=row[5]))
            for row in self._rows(_WAITING, destination=destination, limit=limit)
        ]

    def acknowledge(self, destination: str, positions: Sequence[int]) -> None:
        """Forget deliveries that arrived."""
        self._change(_ACKNOWLEDGE, destination=destination, positions=list(positions))

    def hold(self, destination: str, position: int, reason: str, *, final: bool) -> bool:
        """Put a refused event, and its subject with it, aside for a while; tell whether it is given up."""
        rows = self._rows(
            _HOLD,
            destination=destination,
            position=position,
            reason=reason,
            give_up=final,
            most=REFUSALS,
            first=_FIRST_HOLD,
            longest=_LONGEST_HOLD,
            jitter=jittered(1.0),
        )
        return bool(rows) and bool(rows[0][0])

    def redeliver(self) -> int:
        """Let everything that was given up wait anew; give how many deliveries that were."""
        return self._change(_REDELIVER)

    def deliver_again(self, destinations: Sequence[str]) -> int:
        """Let every event that is still kept go to these once more; give how many deliveries that makes."""
        return self._change(_DELIVER_AGAIN, destinations=list(destinations))

    def prune(self, keep_seconds: float) -> int:
        """Remove some events that are delivered everywhere and older than that; give how many."""
        return self._change(_PRUNE, keep=keep_seconds, limit=_PRUNE_AT_ONCE)

    def drop_others(self, destinations: Sequence[str], keep_seconds: float) -> Mapping[str, int]:
        """Remove some deliveries to anybody else, of events older than that; give how many to whom."""
        rows = self._rows(_DROP, destinations=list(destinations), keep=keep_seconds, limit=_PRUNE_AT_ONCE)
        return {row[0]: row[1] for row in rows}

    def forget(self, memory: str, keep_seconds: float) -> int:
        """Remove some rows of one of `MEMORIES` that are older than that; give how many."""
        return self._change(_FORGET[memory], keep=keep_seconds, limit=_PRUNE_AT_ONCE)

    def backlog(self) -> Mapping[str, tuple[int, int, float]]:
        """Give, by destination, how many wait, how many were given up, and the age in seconds of the oldest waiting."""
        return {row[0]: (row[1], row[2], row[3]) for row in self._rows(_BACKLOG)}

    def _rows(self, statement: str, **parameters: Any) -> list[Any]:
        with self._transaction() as session:
            return list(session.connection().exec_driver_sql(statement, parameters))

    def _change(self, statement: str, **parameters: Any) -> int:
        with self._transaction() as session:
            return session.connection().exec_driver_sql(statement, parameters).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        try:
            with self._database.transaction() as session:
                yield session
        except ProgrammingError as exc:
            if isinstance(exc.orig, UndefinedTable):
                # Started before the migrations were: wait for them as for the database itself.
                raise DatabaseUnavailable("The outbox has no tables yet.", retry_after=1) from exc
            raise


class ActiveLock:
    """Whether this relay is the active one: a session's advisory lock, held on a connection of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Any = None
        self._held = False

    @property
    def held(self) -> bool:
        """What the last `hold` found."""
        return self._held

    def hold(self) -> bool:
        """Take the lock, or make sure that it is still held; false while another relay has it.

        Raises `DatabaseUnavailable`; the lock is gone with the connection then.
        """
        try:
            if self._connection is None:
                pooled = self._database.engine.raw_connection()
                # Out of the pool for good: the lock is the session's.
                pooled.detach()
                self._connection = pooled.dbapi_connection
                self._connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
            with self._connection.cursor() as cursor:
                if self._held:
                    cursor.execute("SELECT 1")
                else:
                    cursor.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK_KEY,))
                    (self._held,) = cursor.fetchone()
        except (SQLAlchemyError, psycopg2.Error) as exc:
            self.close()
            raise DatabaseUnavailable(retry_after=1) from exc
        return self._held

    def close(self) -> None:
        """Give the lock back with its connection."""
        self._held = False
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg2.Error):
                connection.close()


class Courier(Duty):
    """Delivers to one destination, in order. What it cannot deliver holds up nobody else's."""

    def __init__(
        self,
        destination: str,
        deliver: Deliver,
        *,
        store: RelayStore,
        may_deliver: Callable[[], bool],
        metrics: RelayMetrics,
        on_death: Callable[[], None],
    ) -> None:
        super().__init__(f"courier of {destination}", pause=lambda: self._pause_seconds, on_death=on_death)
        self.destination = destination
        self._deliver = deliver
        self._store = store
        self._may_deliver = may_deliver
        self._metrics = metrics
        self._size = LARGEST_BATCH
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._pause_seconds = 0.0

    def run_once(self, now: datetime) -> None:
        """Deliver one batch."""
        try:
            self._pause_seconds = self._work()
        except (Unavailable, BadGateway, DeadlineExceeded) as exc:
            self._pause_seconds = self._backoff.next()
            self._metrics.failed(self.destination)
            if self._backoff.failures == 1:
                _log.warning(
                    "destination_away", destination=self.destination, code=exc.code, cause=repr(exc.__cause__)[:300]
                )
        else:
            if self._backoff.failures:
                _log.info("destination_back", destination=self.destination, failures=self._backoff.failures)
            self._backoff.reset()

    def _work(self) -> float:
        """Give the seconds until the next look; none while there is more."""
        if not self._may_deliver():
            return _COURIER_SECONDS
        batch = self._store.waiting(self.destination, self._size)
        if not batch:
            return _COURIER_SECONDS
        try:
            self._deliver([item.event for item in batch])
        except EventRefused as refused:
            if len(batch) > 1:
                # One of them, and nobody says which: alone they show it.
                self._size = 1
            else:
                self._put_aside(batch[0], refused)
            return 0.0
        self._store.acknowledge(self.destination, [item.position for item in batch])
        self._size = min(self._size * 2, LARGEST_BATCH)
        moment = datetime.now(UTC)
        for item in batch:
            self._metrics.delivered(self.destination, (moment - item.event.time).total_seconds())
        return 0.0

    def _put_aside(self, item: Waiting, refused: EventRefused) -> None:
        given_up = self._store.hold(self.destination, item.position, str(refused), final=refused.final)
        self._metrics.refused(self.destination)
        told = {
            "destination": self.destination,
            "event_type": item.event.type,
            "event_id": str(item.event.id),
            "subject": str(item.event.subject),
            "reason": str(refused)[:500],
        }
        if given_up:
            _log.error("event_given_up", **told)
        else:
            _log.warning("event_refused", **told)


class Relay(Duty):
    """Decides whether this process is the active relay, spreads new events, and prunes."""

    def __init__(
        self,
        *,
        store: RelayStore,
        lock: ActiveLock,
        deliveries: Mapping[str, Deliver],
        poll_seconds: float = 0.2,
        keep_seconds: float,
        remembers: Sequence[str],
        metrics: RelayMetrics,
        on_death: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`deliveries` is the list of destinations; `remembers` those of `MEMORIES` that the service has."""
        super().__init__("relay", pause=lambda: self._pause_seconds, on_death=on_death)
        self._store = store
        self._lock = lock
        self._poll_seconds = poll_seconds
        self._keep_seconds = keep_seconds
        self._remembers = remembers
        self._metrics = metrics
        self._monotonic = monotonic
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._pause_seconds = 0.0
        self._active = threading.Event()
        self._pruned_at = self._measured_at = -1e9
        self.couriers = [
            Courier(
                destination,
                deliver,
                store=store,
                may_deliver=self._active.is_set,
                metrics=metrics,
                on_death=on_death,
            )
            for destination, deliver in deliveries.items()
        ]

    @property
    def is_active(self) -> bool:
        """Whether this relay delivers; otherwise it stands by."""
        return self._active.is_set()

    def start(self) -> None:
        """Begin, with every courier."""
        for courier in self.couriers:
            courier.start()
        super().start()

    def stop(self, timeout: float | None = 5.0) -> None:
        """End after the batches under way, and give the lock back."""
        for courier in self.couriers:
            courier.stop(0)
        super().stop(timeout)
        for courier in self.couriers:
            courier.stop(timeout)
        self._set_active(False)
        self._lock.close()

    def run_once(self, now: datetime) -> None:
        """Look once for new events."""
        try:
            self._set_active(self._lock.hold())
            self._pause_seconds = self._work() if self.is_active else self._poll_seconds
        except (Unavailable, DeadlineExceeded) as exc:
            # Without the database there is no lock, and another relay may have it by now.
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
        destinations = [courier.destination for courier in self.couriers]
        spread = self._store.spread(destinations)
        if spread:
            for courier in self.couriers:
                courier.wake()
        moment = self._monotonic()
        if moment - self._measured_at >= _MEASURE_SECONDS:
            self._measured_at = moment
            self._metrics.measured(self._store.backlog(), destinations)
        if moment - self._pruned_at >= _PRUNE_SECONDS:
            removed = self._drop(destinations)
            removed = max(removed, self._store.prune(self._keep_seconds))
            for memory in self._remembers:
                removed = max(removed, self._store.forget(memory, REMEMBER_DAYS * 86_400))
            # More of it at once, but never before the next events.
            if removed < _PRUNE_AT_ONCE:
                self._pruned_at = moment
        return 0.0 if spread == _SPREAD_AT_ONCE else self._poll_seconds

    def _drop(self, destinations: Sequence[str]) -> int:
        dropped = self._store.drop_others(destinations, self._keep_seconds)
        for destination, count in dropped.items():
            _log.warning("deliveries_dropped", destination=destination, count=count, cause="no destination any more")
        return sum(dropped.values())

    def _set_active(self, active: bool) -> None:
        if active == self.is_active:
            return
        (self._active.set if active else self._active.clear)()
        for courier in self.couriers:
            courier.wake()
        self._metrics.active(active)
        if active:
            _log.info("relay_active")
        elif not self.stopping:
            _log.info("relay_stands_by")
