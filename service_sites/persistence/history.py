"""Every query about the history of work items, which nobody changes: the service has no right to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Integer, Text, Uuid, bindparam, cast, func, literal_column, or_, select
from sqlalchemy.orm import Session

from service_sites.persistence.sites import run
from service_sites.tables import History
from servicekit.database.engine import Database
from servicekit.database.statement import Statement

_OF_ITEM = (
    History.item_id == bindparam("item_id", type_=Uuid()),
    History.version > bindparam("after", type_=BigInteger()),
)
_USER, _ORGANISATION = bindparam("user_id", type_=Uuid()), bindparam("organisation", type_=Text())
_COLUMNS: list[Any] = [*History.__table__.columns]
#: Since the item came to be theirs, and what they did themselves.
_CONCERNS = or_(
    History.actor_id == _USER,
    History.organisation == func.nullif(_ORGANISATION, literal_column("''")),
    History.version >= bindparam("since", type_=BigInteger()),
)
_ALL = select(*_COLUMNS).where(*_OF_ITEM).order_by(History.version).limit(bindparam("limit", type_=Integer()))
_PAGE, _THEIRS = Statement(_ALL), Statement(_ALL.where(_CONCERNS))
#: When somebody became the assignee.
_ASSIGNED = Statement(
    select(func.max(History.version).label("version")).where(
        History.item_id == bindparam("item_id"),
        History.changes.op("#>>")(literal_column("'{assignee_id,1}'")) == cast(_USER, Text),
    )
)
_NEVER = 2**62


def page(database: Database | Session, item: Any, after: int, limit: int) -> Sequence[Any]:
    """Return what happened to an item behind a version, the oldest first."""
    return run(database, _PAGE, {"item_id": item.id, "after": after, "limit": limit})


def page_for_contractor(
    database: Database | Session, item: Any, after: int, limit: int, user_id: UUID | None, organisation: str
) -> Sequence[Any]:
    """Return the same, as far as it concerns somebody to whom the item is given, or their organisation: of that time
    all that the item itself shows them."""
    values = {"item_id": item.id, "user_id": user_id}
    since = _NEVER
    if item.assignee_id is not None and item.assignee_id == user_id:
        # If no change gave it to them, it was theirs from the beginning.
        since = run(database, _ASSIGNED, values)[0].version or 0
    values |= {"after": after, "limit": limit, "organisation": organisation, "since": since}
    return run(database, _THEIRS, values)
