"""What becomes of somebody's work when they leave."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from service_sites.domain.people import Actor, SiteRole
from service_sites.persistence import items, members, sites
from service_sites.persistence.items import Entry
from servicekit.identity.reach import Reach

#: What history calls it.
PERSON_LEFT = "person_left"


def leave_all(session: Session, user_id: UUID, now: datetime) -> None:
    """Do so on all of somebody's sites, and keep them from being given work there until the transaction ends."""
    # In the order of the sites, so that two who leave at once wait for each other and for nothing else.
    for site_id in members.sites_of(session, user_id):
        sites.hold(session, site_id)
        leave(session, site_id, user_id, now)


def leave(session: Session, site_id: UUID, user_id: UUID, now: datetime) -> None:
    """Take somebody off the work of a held site that has not come to its end: their name stays, for managers to assign
    it anew. Call it while they still are one of the site's people, so that history says what they were."""
    for item_id in items.assigned(session, site_id, user_id):
        site = sites.begin(session, site_id, now)
        row = items.lock(session, item_id, user_id, now, reach=Reach.all())
        role = SiteRole(row.reader_role)
        who = Actor(user_id, row.reader_name, role, row.reader_organisation, row.reader_position)
        items.write(session, site, row, {"assignee_id": None}, Entry(PERSON_LEFT, who))
