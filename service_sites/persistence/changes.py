"""The queries about a site's changes that are about no item in particular."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import BigInteger, Integer, Text, bindparam, select
from sqlalchemy.dialects.postgresql import ARRAY

from service_sites.persistence.items import Stretch, is_visible
from service_sites.tables import Removal
from servicekit.database.engine import Database
from servicekit.database.statement import Statement
from servicekit.identity.reach import Reach

_REMOVED: list[Any] = [Removal.change_seq, Removal.item_id]
_REMOVALS = Statement(
    select(*_REMOVED)
    .where(
        Removal.site_id == bindparam("site_id"),
        Removal.change_seq > bindparam("since", type_=BigInteger()),
        Removal.change_seq <= bindparam("until", type_=BigInteger()),
        Removal.audience == bindparam("audiences", type_=ARRAY(Text)).any_(),
        ~is_visible(Removal.item_id),
    )
    .distinct()
    .order_by(Removal.change_seq)
    .limit(bindparam("limit", type_=Integer()))
)


def removals(database: Database, stretch: Stretch, audiences: Collection[str], *, reach: Reach) -> Sequence[Any]:
    """The items that somebody of these audiences sees no longer since a stretch, each with when that was."""
    return database.rows(_REMOVALS, {**stretch._asdict(), "audiences": list(audiences), "reach": reach.owner})
