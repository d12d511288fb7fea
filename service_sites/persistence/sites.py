"""Every query about sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, and_, bindparam, exists, func, select
from sqlalchemy import Uuid as UuidType
from sqlalchemy.orm import aliased

from service_sites.tables import Membership, Site
from servicekit.database.engine import Database
from servicekit.database.statement import Statement
from servicekit.identity.reach import Reach

_CALLER = bindparam("caller", type_=UuidType())
_OWN = and_(Membership.site_id == Site.id, Membership.user_id == _CALLER)
_SHOWN = (*Site.__table__.columns, Membership.role)


def of_site(site_id: Any, owner: Any) -> ColumnElement[bool]:
    """The condition that a person is one of a site's people."""
    of = aliased(Membership)
    return exists().where(of.site_id == site_id, of.user_id == owner)


class FoundSites(NamedTuple):
    """One page, and how many there are."""

    rows: Sequence[Any]
    total: int


def _page(*conditions: ColumnElement[bool]) -> Statement:
    page = select(*_SHOWN).outerjoin(Membership, _OWN).where(*conditions).order_by(Site.key)
    return Statement(page.limit(bindparam("limit")).offset(bindparam("offset")))


_ALL, _THEIRS = _page(), _page(of_site(Site.id, _CALLER))
_COUNT_ALL = Statement(select(func.count().label("total")).select_from(Site))
_COUNT_THEIRS = Statement(
    select(func.count().label("total")).select_from(Membership).where(Membership.user_id == _CALLER)
)


def search(database: Database, caller: UUID | None, limit: int, offset: int, *, reach: Reach) -> FoundSites:
    """One page of the sites within reach by their keys, each with the caller's role there, if any."""
    page, count = (_ALL, _COUNT_ALL) if reach.owner is None else (_THEIRS, _COUNT_THEIRS)
    values = {"caller": caller, "limit": limit, "offset": offset}
    rows = database.rows(page, values)
    return FoundSites(rows, database.rows(count, values)[0].total)
