"""Ids of what was deleted in another service, so that nothing is made for it afterwards.

Code that makes something checks for a tombstone in the same transaction; the handler of the deletion adds one in the
transaction that ends what was made before. A lock per id orders the two: what is made first is seen and ended, and what
comes second sees the tombstone. Ids are never reused, so a tombstone stays forever; it takes about 60 bytes.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, DateTime, MetaData, PrimaryKeyConstraint, Table, Uuid
from sqlalchemy.orm import Session

# The first half of each lock's key, apart from locks with a single number.
_LOCKS = 0x517E

#: Instead of `buried`, for an INSERT that looks for the tombstone itself, as the next statement of the same message.
KEEP = "SELECT pg_advisory_xact_lock_shared(%(tombstone_locks)s, %(tombstone_key)s);\n"
# Two statements in one message: the second sees what was committed while the first waited. Always in the same order.
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
    """Return which of these are deleted; the others stay undeleted until the transaction ends."""
    if not ids:
        return set()
    rows = session.connection().exec_driver_sql(*select_buried(ids))
    return {row[0] for row in rows}


def select_buried(ids: Collection[UUID]) -> tuple[str, dict[str, Any]]:
    """The query of `buried`, for other kinds of connection: its rows are the deleted ids."""
    return _BURIED, {"locks": _LOCKS, "keys": [_key(item) for item in ids], "ids": [str(item) for item in ids]}


def kept(id: UUID) -> dict[str, Any]:
    """The parameters of `KEEP`."""
    return {"tombstone_locks": _LOCKS, "tombstone_key": _key(id)}


def bury(session: Session, id: UUID, moment: datetime) -> None:
    """Store a tombstone, waiting for transactions that are making something for this id."""
    connection = session.connection()
    connection.exec_driver_sql(_LOCK, {"locks": _LOCKS, "key": _key(id)})
    connection.exec_driver_sql(_BURY, {"id": str(id), "moment": moment})


def define_tombstones(metadata: MetaData) -> None:
    """Add the table to a service's models; its migrations create the same."""
    Table(
        "tombstones",
        metadata,
        Column("id", Uuid, nullable=False),
        Column("deleted_at", DateTime(timezone=True), nullable=False),
        PrimaryKeyConstraint("id", name="pk_tombstones"),
    )


def _key(id: UUID) -> int:
    """One of 256 lock keys: making ten thousand things at once must not fill the server's lock table.

    Makers never wait for each other; a deletion sometimes waits for unrelated makers.
    """
    return id.bytes[-1]
