"""The queries about a site's changes that are about no item in particular."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Integer, Text, Uuid, bindparam, cast, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY

from service_sites.errors import SiteNotFound
from service_sites.persistence.items import today_at
from service_sites.tables import Membership, Removal, Site
from servicekit.database.engine import Database
from servicekit.database.statement import Statement
from servicekit.identity.reach import Reach

_REACH = bindparam("reach", type_=Uuid())
_SITE: list[Any] = [
    Site.change_seq,
    today_at(Site.time_zone).label("today"),
    func.coalesce(Membership.changed_seq, 0).label("changed_seq"),
    Membership.role.label("reader_role"),
    Membership.organisation.label("reader_organisation"),
    Membership.name.label("reader_name"),
    Membership.position.label("reader_position"),
]
_STATE = Statement(
    select(*_SITE)
    .select_from(Site)
    .outerjoin(Membership, (Membership.site_id == Site.id) & (Membership.user_id == bindparam("user_id", type_=Uuid())))
    .where(Site.id == bindparam("site_id"), or_(cast(_REACH, Uuid()).is_(None), Membership.user_id == _REACH))
)
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


def state(database: Database, site_id: UUID, user_id: UUID | None, now: datetime, *, reach: Reach) -> Any:
    """How far a site has come, its date, and what somebody is there since when. Raises `SiteNotFound`."""
    values = {"site_id": site_id, "user_id": user_id, "now": now, "reach": reach.owner}
    for row in database.rows(_STATE, values):
        return row
    raise SiteNotFound


def removals(
    database: Database, site_id: UUID, audiences: Collection[str], *, since: int, until: int, limit: int
) -> Sequence[Any]:
    """The items that some of these audiences may no longer see, each with when that was; one may be seen again."""
    values = {"site_id": site_id, "audiences": list(audiences), "since": since, "until": until, "limit": limit}
    return database.rows(_REMOVALS, values)
