"""The queries about a site's changes that are about no item in particular."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Integer, Text, bindparam, select
from sqlalchemy.dialects.postgresql import ARRAY

from service_sites.tables import Removal
from servicekit.database.engine import Database
from servicekit.database.statement import Statement

_REMOVED: list[Any] = [Removal.change_seq, Removal.item_id]
_REMOVALS = Statement(
    select(*_REMOVED)
    .where(
        Removal.site_id == bindparam("site_id"),
        Removal.change_seq > bindparam("since", type_=BigInteger()),
        Removal.change_seq <= bindparam("until", type_=BigInteger()),
        Removal.audience == bindparam("audiences", type_=ARRAY(Text)).any_(),
    )
    .distinct()
    .order_by(Removal.change_seq)
    .limit(bindparam("limit", type_=Integer()))
)


def removals(
    database: Database, site_id: UUID, audiences: Collection[str], *, since: int, until: int, limit: int
) -> Sequence[Any]:
    """The items that some of these audiences may no longer see, each with when that was; one may be seen again."""
    values = {"site_id": site_id, "audiences": list(audiences), "since": since, "until": until, "limit": limit}
    return database.rows(_REMOVALS, values)
