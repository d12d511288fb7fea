"""The outbox: events are written in the transaction of their change, so that neither exists without the other.

servicekit.events.relay delivers them. Events of a subject get their positions while the change holds that subject's row
lock, so per subject positions follow the order of commits. Across subjects they do not: a position may become visible
after a higher one. So never read "everything after the last position I saw".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import psycopg2
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from servicekit.database.engine import Database
from servicekit.database.statement import Statement
from servicekit.events.cloudevents import Event
from servicekit.web import idempotency
from servicekit.web.idempotency import RequestKey
from servicekit.wire.envelope import dump

_INSERT = """
INSERT INTO outbox (id, type, subject, "time", data)
SELECT * FROM unnest(%(ids)s::uuid[], %(types)s::text[], %(subjects)s::uuid[], %(times)s::timestamptz[],
                     %(data)s::jsonb[])
"""
#: For the row that another part of the same statement made, changed or removed.
_INSERT_OF_MADE = """
INSERT INTO outbox (id, type, subject, "time", data)
SELECT %(event_id)s::uuid, %(event_type)s, made.id, %(event_time)s, %(event_data)s::jsonb FROM made
RETURNING subject
"""


class Also(NamedTuple):
    """Further changes of a statement, as common table expressions, each after a comma; `made` has the changed id."""

    text: str = ""
    values: Mapping[str, Any] = MappingProxyType({})


NOTHING_ELSE = Also()


def make(
    database: Database,
    insert: Statement,
    values: Mapping[str, Any],
    event: Event,
    key: RequestKey | None = None,
    also: Also = NOTHING_ELSE,
    *,
    before: str = "",
) -> UUID | None:
    """Insert a row, its event and the key of its request, and make further changes, in one round trip; returns the
    row's id.

    `insert` returns the id of the row, or nothing where it may not be made; then nothing is stored. `before` is a
    statement of the same transaction. Where an earlier request with the key made something, or is just making it, this
    makes nothing and returns its id, or raises `IdempotencyKeyReused`. Returns None if `insert` inserted nothing.
    """
    remembered = "" if key is None else f", remembered AS ({idempotency.REMEMBER})"
    parameters = {**insert.parameters(values), **also.values, **_of_event(event)}
    if key is not None:
        parameters |= {"idempotency_key": key.key, "fingerprint": key.fingerprint}
    while True:
        is_taken = False
        try:
            if database.once(
                f"{before}WITH made AS ({insert.text}){remembered}{also.text}{_INSERT_OF_MADE}", parameters
            ):
                return event.subject
        except psycopg2.IntegrityError as exc:
            is_taken = idempotency.is_taken(exc)
            if not is_taken:
                raise
        # It may have waited for the same request, which made what stands in its way.
        earlier = None if key is None else idempotency.find_made(database, key)
        if earlier is not None or not is_taken:
            return earlier
        # Pruned in between, for its age.


def change(
    database: Database, statement: Statement, values: Mapping[str, Any], event: Event | None, also: Also = NOTHING_ELSE
) -> bool:
    """Update or delete a row, write the event of that, if any, and make further changes, in one round trip.

    `statement` returns the row's id, or nothing where the row is not to be changed; then this returns False, with
    nothing done.
    """
    if event is None:
        return bool(database.rows(statement, values))
    text = f"WITH made AS ({statement.text}){also.text}{_INSERT_OF_MADE}"
    return bool(database.once(text, {**statement.parameters(values), **also.values, **_of_event(event)}))


def event_of_made(event: Event) -> Also:
    """The end of a statement that writes the event of `made`, a common table expression that has the id of its row, or
    none, and then there is no event. `event` may name any subject."""
    return Also(_INSERT_OF_MADE, _of_event(event))


def add_all(session: Session, events: Iterable[Event]) -> None:
    """Write events in the transaction of their change, once the changed rows are locked; for none it does nothing."""
    given = list(events)
    if not given:
        return
    session.flush()
    session.connection().exec_driver_sql(
        _INSERT,
        {
            "ids": [str(event.id) for event in given],
            "types": [event.type for event in given],
            "subjects": [str(event.subject) for event in given],
            "times": [event.time for event in given],
            "data": [dump(event.data).decode("utf-8") for event in given],
        },
    )


def _of_event(event: Event) -> dict[str, Any]:
    """The parameters of `_INSERT_OF_MADE`."""
    return {
        "event_id": str(event.id),
        "event_type": event.type,
        "event_time": event.time,
        "event_data": dump(event.data).decode("utf-8"),
    }


def define_outbox(metadata: MetaData) -> None:
    """Add the outbox tables to a service's models; its migrations create the same."""
    Table(
        "outbox",
        metadata,
        Column("position", BigInteger, Identity(always=True), nullable=False),
        Column("id", Uuid, nullable=False),
        Column("type", Text, nullable=False),
        Column("subject", Uuid, nullable=False),
        Column("time", DateTime(timezone=True), nullable=False),
        Column("data", JSONB, nullable=False),
        # The deliveries are written; from then on they alone say what is left to do.
        Column("spread", Boolean, nullable=False, server_default=text("false")),
        PrimaryKeyConstraint("position", name="pk_outbox"),
        UniqueConstraint("id", name="uq_outbox_id"),
        CheckConstraint("jsonb_typeof(data) = 'object'", name="ck_outbox_data"),
        Index("ix_outbox_unspread", "position", postgresql_where=text("NOT spread")),
    )
    Table(
        "outbox_deliveries",
        metadata,
        Column("position", BigInteger, nullable=False),
        Column("destination", Text, nullable=False),
        Column("subject", Uuid, nullable=False),
        # How often the destination has refused this event.
        Column("refusals", SmallInteger, nullable=False, server_default=text("0")),
        # After a refusal: neither it nor later events of its subject are delivered before then.
        Column("due_at", DateTime(timezone=True)),
        # When it was given up; kept with the reason.
        Column("refused_at", DateTime(timezone=True)),
        Column("reason", Text),
        PrimaryKeyConstraint("position", "destination", name="pk_outbox_deliveries"),
        ForeignKeyConstraint(
            ["position"], ["outbox.position"], name="fk_outbox_deliveries_position", ondelete="CASCADE"
        ),
        CheckConstraint("char_length(destination) BETWEEN 1 AND 50", name="ck_outbox_deliveries_destination"),
        CheckConstraint("refused_at IS NULL OR reason IS NOT NULL", name="ck_outbox_deliveries_refused"),
        Index("ix_outbox_deliveries_waiting", "destination", "position", postgresql_where=text("refused_at IS NULL")),
        Index(
            "ix_outbox_deliveries_held",
            "destination",
            "subject",
            postgresql_where=text("due_at IS NOT NULL AND refused_at IS NULL"),
        ),
    )
