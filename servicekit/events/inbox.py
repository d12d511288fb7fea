"""The inbox: events of other services, each acted upon once, however often it is delivered.

The id of an event that is acted upon is stored in the transaction of its effect. A batch is taken whole or not at
all: a good answer acknowledges every event in it, any other answer none.
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
from servicekit.wire.errors import AppError, DatabaseLocked, Forbidden, Unauthorized

#: Acts on one event, inside the transaction that remembers it; raises `Invalid` for data that it cannot read.
Handler = Callable[[Session, Event], None]

# One order for everybody, so that two batches with the same events wait for each other instead of deadlocking. The
# second waits here until the first has committed, and then finds nothing new.
_REMEMBER = """
SET LOCAL lock_timeout = '1s';
INSERT INTO processed_events (id, type)
SELECT x.id, x.type FROM unnest(%(ids)s::uuid[], %(types)s::text[]) AS x(id, type) ORDER BY x.id
ON CONFLICT (id) DO NOTHING RETURNING id
"""
_log = get_logger(__name__)


class Taken(View):
    """What became of a batch; all of its events are acknowledged."""

    processed: int
    #: acted upon before
    duplicates: int
    #: of no interest here
    ignored: int


class Inbox:
    """Takes batches of events. `handlers` maps the types that matter here to what they do. Thread-safe."""

    def __init__(self, database: Database, handlers: Mapping[str, Handler]) -> None:
        self._database = database
        self._handlers = handlers

    def take(self, events: Sequence[Event]) -> Taken:
        """Act on those that are new, in their order, in one transaction. Raises what a handler raises."""
        try:
            return self._take(events)
        except DatabaseLocked as exc:
            # Not that the database is away, for which every event would wait: this one alone is tried again later.
            raise AppError("Somebody keeps locked what an event of this batch is to change.") from exc

    def _take(self, events: Sequence[Event]) -> Taken:
        # Twice in one batch is once.
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
    """Declare the endpoint for the other services' events; it stands in no public document."""
    api = Routes("internal", documented=False)
    guard = bearer_guard(token, name="internal", closed="This service takes no events: INTERNAL_TOKEN is not set.")

    @api.post(PATH, errors=(Unauthorized, Forbidden), body_limit=LARGEST_BODY, guard=guard)
    def take_events(body: EventBatch) -> Taken:
        """Take a batch of events, whole or not at all."""
        return inbox.take([item.event for item in body.events])

    return api


def define_inbox(metadata: MetaData) -> None:
    """Add the tables of the inbox to a service's models; its migrations make the same."""
    Table(
        "processed_events",
        metadata,
        Column("id", Uuid, nullable=False),
        Column("type", Text, nullable=False),
        Column("processed_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        PrimaryKeyConstraint("id", name="pk_processed_events"),
        Index("ix_processed_events_processed_at", "processed_at"),
    )
