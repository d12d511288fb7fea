"""The inbox: processes events of other services once each, however often they are delivered.

An event's id is stored in the transaction of its effect. A batch is accepted whole or not at all: a successful answer
acknowledges every event in it, any other answer none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Column, DateTime, Index, MetaData, PrimaryKeyConstraint, Table, Text, Uuid, text
from sqlalchemy.orm import Session

from servicekit.database.engine import Database
from servicekit.events.cloudevents import LARGEST_BODY, PATH, Event, EventBatch
from servicekit.observing.logs import get_logger
from servicekit.web.routes import Routes, bearer_guard
from servicekit.web.schemas import View
from servicekit.wire.errors import AppError, DatabaseLocked, Forbidden, TooManyRequests, Unauthorized

#: Processes one event, inside the transaction that stores its id; raises `Invalid` for data that it cannot read.
Handler = Callable[[Session, Event], None]

# Always in the same order, so that two batches with the same events wait for each other instead of deadlocking. The
# second waits here until the first has committed, and then finds nothing new.
_REMEMBER = """
SET LOCAL lock_timeout = '1s';
INSERT INTO processed_events (id, type)
SELECT x.id, x.type FROM unnest(%(ids)s::uuid[], %(types)s::text[]) AS x(id, type) ORDER BY x.id
ON CONFLICT (id) DO NOTHING RETURNING id
"""
_log = get_logger(__name__)


class Taken(View):
    """The outcome of a batch; all of its events are acknowledged."""

    processed: int
    #: processed before
    duplicates: int
    #: of types without a handler
    ignored: int


class Inbox:
    """Takes batches of events. `handlers` maps event types to their handlers; others are ignored. Thread-safe."""

    def __init__(self, database: Database, handlers: Mapping[str, Handler]) -> None:
        self._database = database
        self._handlers = handlers

    def take(self, events: Sequence[Event]) -> Taken:
        """Process the new events, in order, in one transaction. Raises what a handler raises."""
        try:
            return self._take(events)
        except DatabaseLocked as exc:
            # Not as an unavailable database, which would stall all events: only this one is retried later.
            raise AppError("Somebody keeps locked what an event of this batch is to change.") from exc

    def _take(self, events: Sequence[Event]) -> Taken:
        # A duplicate within the batch counts once.
        ours = list({event.id: event for event in events if event.type in self._handlers}.values())
        new: set[str] = set()
        if ours:
            with self._database.transaction() as session:
                rows = session.connection().exec_driver_sql(
                    _REMEMBER, {"ids": [str(event.id) for event in ours], "types": [event.type for event in ours]}
                )
                new = {str(row[0]) for row in rows}
                for event in ours:
                    if str(event.id) in new:
                        self._handlers[event.type](session, event)
            for event in ours:
                if str(event.id) in new:
                    _log.info("event_processed", event_type=event.type, event_id=str(event.id))
        wanted = sum(event.type in self._handlers for event in events)
        return Taken(processed=len(new), duplicates=wanted - len(new), ignored=len(events) - wanted)


def event_routes(inbox: Inbox, token: str | None) -> Routes:
    """Declare the endpoint for other services' events; it appears in no public document."""
    api = Routes("internal", documented=False)
    # Its guesses at the relay's own address would stop the events.
    guard = bearer_guard(
        token, name="internal", closed="This service takes no events: INTERNAL_TOKEN is not set.", puts_off=False
    )

    @api.post(PATH, errors=(Unauthorized, Forbidden, TooManyRequests), body_limit=LARGEST_BODY, guard=guard)
    def take_events(body: EventBatch) -> Taken:
        """Take a batch of events, whole or not at all."""
        return inbox.take([item.event for item in body.events])

    return api


def define_inbox(metadata: MetaData) -> None:
    """Add the inbox tables to a service's models; its migrations create the same."""
    Table(
        "processed_events",
        metadata,
        Column("id", Uuid, nullable=False),
        Column("type", Text, nullable=False),
        Column("processed_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        PrimaryKeyConstraint("id", name="pk_processed_events"),
        Index("ix_processed_events_processed_at", "processed_at"),
    )
