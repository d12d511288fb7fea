"""Ids of what was deleted in another service, so that nothing is made for it afterwards.

Whoever makes something asks in the transaction of making it; the event of the deletion buries in the transaction that
ends what was made before. A lock for each id puts the two in order: what is made first is seen and ended, and what
comes second sees the tombstone. Ids are never given twice, so a tombstone stays for ever; it takes about 60 bytes.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, DateTime, MetaData, PrimaryKeyConstraint, Table, Uuid
from sqlalchemy.orm import Session

# The first half of each lock's number, apart from locks with one number.
_LOCKS = 0x517E

# Two statements in one message: the second sees what was committed while the first waited. In one order for all.
_BURIED = """
SELECT count(pg_advisory_xact_lock_shared(%(locks)s, k)) FROM (
    SELECT DISTINCT k FROM unnest(%(keys)s::int[]) AS x(k) ORDER BY k) AS keys;
SELECT t.id FROM tombstones t WHERE t.id = ANY (%(ids)s::uuid[])
"""
_LOCK = "SELECT pg_advisory_xact_lock(%(locks)s, %(key)s)"
_BURY = """
INSERT INTO tombstones (id, deleted_at) VALUES (%(id)s::uuid, %(moment)s) ON CONFLICT (id) DO NOTHING
"""


def buried(session: Session, ids: Collection[UUID]) -> set[UUID]:
    """Tell which of these are deleted; the others stay undeleted here until the transaction ends."""
    if not ids:
        return set()
    rows = session.connection().exec_driver_sql(*select_buried(ids))
    return {row[0] for row in rows}


def select_buried(ids: Collection[UUID]) -> tuple[str, dict[str, Any]]:
    """What `buried` asks, for whoever has another kind of connection: its rows are the ids that are deleted."""
    return _BURIED, {"locks": _LOCKS, "keys": [_key(item) for item in ids], "ids": [str(item) for item in ids]}


def bury(session: Session, id: UUID, moment: datetime) -> None:
    """Remember that this was deleted, waiting for everybody who is just making something for it."""
    connection = session.connection()
    connection.exec_driver_sql(_LOCK, {"locks": _LOCKS, "key": _key(id)})
    connection.exec_driver_sql(_BURY, {"id": str(id), "moment": moment})


def define_tombstones(metadata: MetaData) -> None:
    """Add the table to a service's models; its migrations make the same."""
    Table(
        "tombstones",
        metadata,
        Column("id", Uuid, nullable=False),
        Column("deleted_at", DateTime(timezone=True), nullable=False),
        PrimaryKeyConstraint("id", name="pk_tombstones"),
    )


def _key(id: UUID) -> int:
    """One of 256 numbers: whoever makes ten thousand things at once must not fill the server's table of locks.

    Makers never wait for each other; a deletion waits now and then for makers that have nothing to do with it.
    """
    return id.bytes[-1]
