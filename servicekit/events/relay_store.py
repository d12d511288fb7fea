"""The database side of one service's relay: all statements, and the lock of the active relay."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg2
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT
from sqlalchemy.exc import SQLAlchemyError

from servicekit.database.engine import Database
from servicekit.events.cloudevents import Event
from servicekit.process.backoff import jittered
from servicekit.wire.errors import DatabaseUnavailable

OUTBOX = "outbox"
#: Tables of what a service remembers, with their timestamp columns.
MEMORIES = {
    "processed_events": "processed_at",
    "idempotency_keys": "created_at",
    "answered_keys": "created_at",
    "operations": "created_at",
}
#: Rows that one statement spreads or removes.
AT_ONCE = 1000
#: Refusals after which an event is given up for that destination, and kept with the reason.
REFUSALS = 5
_FIRST_HOLD = 1.0
_LONGEST_HOLD = 60.0
# Any number will do as long as all relays of a database use the same; migrations use another.
_LOCK_KEY = 0x517E_0002

#: The event types that each destination receives; None: all of them.
Hears = Mapping[str, Collection[str] | None]

# A row for each destination and type, or a single one without a type for a destination that receives all.
_HEARS = "unnest(%(destinations)s::text[], %(types)s::text[]) AS h(destination, type)"

# An event and its deliveries in one transaction. Of two events of a subject the earlier has the lower position and is
# visible whenever the later is, so it is never spread after it.
_SPREAD = f"""
WITH fresh AS MATERIALIZED (
    SELECT o.position FROM outbox o WHERE NOT o.spread ORDER BY o.position LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), done AS (
    UPDATE outbox o SET spread = true FROM fresh WHERE o.position = fresh.position
    RETURNING o.position, o.type, o.subject
), made AS (
    INSERT INTO outbox_deliveries (position, destination, subject)
    SELECT done.position, h.destination, done.subject
    FROM done JOIN {_HEARS} ON h.type IS NULL OR h.type = done.type
    RETURNING destination
)
SELECT (SELECT count(*) FROM done) AS events, ARRAY(SELECT DISTINCT destination FROM made) AS destinations
"""

# Deliveries that are due, lowest positions first. A refused subject is held until its time: the refused event and all
# later ones of the subject are skipped, and other subjects go on. An event given up holds nothing back.
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
RETURNING refused_at IS NOT NULL AS given_up
"""

_REDELIVER = """
UPDATE outbox_deliveries SET refused_at = NULL, due_at = NULL, refusals = 0 WHERE refused_at IS NOT NULL
"""

# Those not spread yet will get their deliveries anyway.
_DELIVER_AGAIN = f"""
INSERT INTO outbox_deliveries (position, destination, subject)
SELECT o.position, h.destination, o.subject FROM outbox o JOIN {_HEARS} ON h.type IS NULL OR h.type = o.type
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

# Deliveries to a former destination, which could become one again: the broker, once it is configured anew. Until then
# they keep their events, with any personal data in them, from being removed.
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
SELECT destination, count(*) AS dropped FROM dropped GROUP BY destination
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

# The oldest by position: near enough to the oldest by time, without joining every row.
_BACKLOG = """
SELECT b.destination, b.waiting, b.given_up, coalesce(extract(epoch FROM now() - o."time"), 0)::float8 AS oldest
FROM (
    SELECT d.destination, count(*) FILTER (WHERE d.refused_at IS NULL) AS waiting,
           count(*) FILTER (WHERE d.refused_at IS NOT NULL) AS given_up,
           min(d.position) FILTER (WHERE d.refused_at IS NULL) AS oldest
    FROM (SELECT * FROM outbox_deliveries ORDER BY position LIMIT %(most)s) d GROUP BY d.destination
) b LEFT JOIN outbox o ON o.position = b.oldest
"""

_NOT_SPREAD = """
SELECT count(*) AS waiting, 0 AS given_up, coalesce(extract(epoch FROM now() - min(o."time")), 0)::float8 AS oldest
FROM (SELECT n."time" FROM outbox n WHERE NOT n.spread ORDER BY n.position LIMIT %(most)s) o
"""

# A service may have no outbox, or none yet: a relay may start before the migrations run.
_TABLES = "SELECT name FROM unnest(%(names)s::text[]) AS t(name) WHERE to_regclass(name) IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A delivery that is due."""

    position: int
    event: Event


class Backlog(NamedTuple):
    """The backlog of a destination: events waiting, events given up, and the age of the oldest waiting in seconds."""

    waiting: int = 0
    given_up: int = 0
    oldest: float = 0.0


class RelayStore:
    """The outbox as the relay sees it. Every method is one transaction; raises `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tables(self) -> frozenset[str]:
        """Which of the outbox and `MEMORIES` the service has."""
        return frozenset(row.name for row in self._rows(_TABLES, names=[OUTBOX, *MEMORIES]))

    def spread(self, hears: Hears) -> tuple[int, list[str]]:
        """Write the deliveries of new events; returns the number of events, and the destinations that get any."""
        # Five times a second, and mostly for nothing: in one round trip.
        ((events, destinations),) = self._database.once(_SPREAD, {"limit": AT_ONCE, **_pairs(hears)})
        return events, destinations

    def waiting(self, destination: str, limit: int) -> list[Waiting]:
        """The deliveries due at a destination, in order."""
        return [
            Waiting(row.position, Event(id=row.id, type=row.type, subject=row.subject, time=row.time, data=row.data))
            for row in self._rows(_WAITING, destination=destination, limit=limit)
        ]

    def acknowledge(self, destination: str, positions: Sequence[int]) -> None:
        """Delete deliveries that arrived."""
        self._database.once(_ACKNOWLEDGE, {"destination": destination, "positions": list(positions)})

    def hold(self, destination: str, position: int, reason: str, *, final: bool) -> bool:
        """Hold a refused event, and its subject with it, for a while; returns whether it is given up."""
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
        return any(row.given_up for row in rows)

    def redeliver(self) -> int:
        """Make everything that was given up wait again; returns the number of deliveries."""
        return self._change(_REDELIVER)

    def deliver_again(self, hears: Hears) -> int:
        """Deliver every kept event once more to the destinations of its type; returns the number of deliveries."""
        return self._change(_DELIVER_AGAIN, **_pairs(hears))

    def prune(self, keep_seconds: float) -> int:
        """Remove some events older than that and delivered everywhere; returns how many."""
        return self._change(_PRUNE, keep=keep_seconds, limit=AT_ONCE)

    def drop_others(self, destinations: Collection[str], keep_seconds: float) -> Mapping[str, int]:
        """Remove some deliveries to other destinations, of events older than that; returns counts by destination."""
        rows = self._rows(_DROP, destinations=list(destinations), keep=keep_seconds, limit=AT_ONCE)
        return {row.destination: row.dropped for row in rows}

    def forget(self, memory: str, keep_seconds: float) -> int:
        """Remove some rows of one of `MEMORIES` older than that; returns how many."""
        return self._change(_FORGET[memory], keep=keep_seconds, limit=AT_ONCE)

    def backlog(self, *, most: int | None = None) -> Mapping[str, Backlog]:
        """The backlog of each destination that has one; of the oldest `most` deliveries."""
        rows = self._rows(_BACKLOG, most=most)
        return {row.destination: Backlog(row.waiting, row.given_up, row.oldest) for row in rows}

    def not_spread(self, most: int) -> Backlog:
        """The oldest `most` events that no relay has given to their destinations yet."""
        (row,) = self._rows(_NOT_SPREAD, most=most)
        return Backlog(*row)

    def _rows(self, statement: str, **parameters: Any) -> list[Any]:
        return self._database.once(statement, parameters, with_names=True)

    def _change(self, statement: str, **parameters: Any) -> int:
        with self._database.transaction() as session:
            return session.connection().exec_driver_sql(statement, parameters).rowcount


def _pairs(hears: Hears) -> dict[str, list[str | None]]:
    """The parameters of `_HEARS`."""
    pairs = [(name, type) for name, types in hears.items() for type in ({None} if types is None else {*types})]
    return {"destinations": [name for name, _ in pairs], "types": [type for _, type in pairs]}


class ActiveLock:
    """Makes this relay the active one: a session-level advisory lock, held on a dedicated connection."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Any = None
        self._held = False

    def hold(self) -> bool:
        """Take the lock, or verify that it is still held; False while another relay has it.

        Raises `DatabaseUnavailable`; the lock is lost with the connection then.
        """
        try:
            if self._connection is None:
                # The lock belongs to the session.
                self._connection = self._database.dedicated_connection()
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
        """Release the lock by closing its connection."""
        self._held = False
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg2.Error):
                connection.close()
