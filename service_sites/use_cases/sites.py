"""The use cases of sites: one method, one transaction."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from service_sites.domain.people import SiteRole
from service_sites.persistence import sites
from service_sites.schemas.sites import DeadlineRulesView, SiteCreate, SitePage, SiteQuery, SiteUpdate, SiteView
from service_sites.use_cases.members import actor, found, join, require_alive, require_manager
from service_sites.users_client import PeopleDirectory
from servicekit.database.engine import Database
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.process.clock import Clock, utc_now
from servicekit.process.ids import new_id
from servicekit.web.preconditions import ANY_STATE, IfMatch
from servicekit.wire.errors import Invalid


class Sites:
    """The use cases; thread-safe."""

    def __init__(self, database: Database, people: PeopleDirectory, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._people = people
        self._clock = clock

    def search(self, query: SiteQuery, caller: Principal) -> SitePage:
        """Return one page of the sites that the caller works on; of all, to whoever may read all."""
        reach = caller.reach(Action.READ_SITES)
        rows, total = sites.search(self._database, caller.user_id, query.limit, query.offset, reach=reach)
        views = [_view(row, row.role) for row in rows]
        return SitePage.unchecked(total=total, limit=query.limit, offset=query.offset, sites=views)

    def get(self, site_id: UUID, caller: Principal) -> SiteView:
        """Return one site. Raises `SiteNotFound`."""
        row = sites.find(self._database, site_id, caller.user_id, reach=caller.reach(Action.READ_SITES))
        return _view(row, row.role)

    def create(self, wanted: SiteCreate, caller: Principal) -> SiteView:
        """Open a site with its manager.

        Raises `UnknownPerson`, `SiteKeyTaken` and `PeopleUnavailable`, with nothing stored; and `Invalid` for a time
        zone that the database does not know.
        """
        self._require_time_zone(wanted.time_zone)
        person = found(self._people, wanted.manager, "manager")
        now, site_id = self._clock(), new_id()
        values = {
            "id": site_id,
            "key": wanted.key,
            "name": wanted.name,
            "time_zone": wanted.time_zone,
            "calendar": wanted.calendar,
            "deadline_rules": wanted.deadline_rules.model_dump(),
            "next_number": 1,
            "change_seq": 1,
            "created_at": now,
            "updated_at": now,
        }
        with self._database.transaction() as session:
            require_alive(session, person, wanted.manager, "manager")
            sites.add(session, values)
            join(session, site_id, person, wanted.manager, SiteRole.MANAGER, 1, now)
            row = sites.hold(session, site_id)
        return _view(row, SiteRole.MANAGER.value if person.id == caller.user_id else None)

    def update(self, site_id: UUID, change: SiteUpdate, caller: Principal, if_match: IfMatch = ANY_STATE) -> SiteView:
        """Change fields of a site. Raises `SiteNotFound`, `Forbidden`, `PreconditionFailed` and `Invalid`."""
        if "time_zone" in change.model_fields_set:
            self._require_time_zone(change.time_zone)
        with self._database.transaction() as session:
            row = sites.hold(session, site_id)
            who = actor(session, site_id, caller)
            require_manager(who)
            view = _view(row, who.role)
            if_match.require(view)
            change.require_unchanged(view)
            values = change.named()
            if "deadline_rules" in values:
                named = change.deadline_rules.model_dump(exclude_unset=True)
                values["deadline_rules"] = {**row.deadline_rules, **named}
            changed = {name: value for name, value in values.items() if value != getattr(row, name)}
            if not changed:
                return view
            changed["updated_at"] = max(self._clock(), row.created_at)
            sites.update_held(session, site_id, changed)
            return _view(sites.hold(session, site_id), who.role)

    def _require_time_zone(self, name: str) -> None:
        if not sites.knows_time_zone(self._database, name):
            raise Invalid.field("time_zone", "is not known to the database")


def _view(row: Any, role: str | None) -> SiteView:
    values = {name: getattr(row, name) for name in SiteView.model_fields if name != "role"}
    rules = {name: row.deadline_rules.get(name) for name in DeadlineRulesView.model_fields}
    return SiteView.unchecked(**values | {"deadline_rules": DeadlineRulesView.unchecked(**rules), "role": role})
