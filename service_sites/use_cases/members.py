"""The people of sites: who acts, who is added, changed and removed. One method, one transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from service_sites import events
from service_sites.domain.people import INTERNAL, Actor, SiteRole
from service_sites.errors import LastManager, UnknownPerson
from service_sites.persistence import members, sites
from service_sites.schemas.members import MemberCreate, MemberPage, MemberQuery, MemberUpdate, MemberView
from service_sites.schemas.sites import PersonNamed
from service_sites.use_cases.leaving import leave
from service_sites.users_client import Names, PeopleDirectory, Person
from servicekit.database.engine import Database
from servicekit.events import outbox, tombstones
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action, Role
from servicekit.process.clock import Clock, utc_now
from servicekit.web.preconditions import ANY_STATE, IfMatch
from servicekit.wire.errors import Forbidden

#: Whoever is not logged in, where nobody needs to be.
_LOCAL = "local"
_ADMINISTRATOR = "administrator"


def actor(source: Database | Session, site_id: UUID, caller: Principal) -> Actor:
    """Who the caller is on a site: one of its people, or an administrator or auditor of the whole system.

    Raises `SiteNotFound` for everybody else, and if there is no such site.
    """
    reach = caller.reach(Action.READ_SITES)
    return actor_of(sites.reader(source, site_id, caller.user_id, utc_now(), reach=reach), caller)


def actor_of(row: Any, caller: Principal, name: str = _ADMINISTRATOR) -> Actor:
    """Who the caller is on the site of a row that was found for them. `name` is what an administrator is called who
    is none of its people."""
    override = caller.role is Role.ADMIN
    if row.reader_role is None:
        return Actor(caller.user_id, _LOCAL if caller.user_id is None else name, None, override=override)
    role = SiteRole(row.reader_role)
    return Actor(caller.user_id, row.reader_name, role, row.reader_organisation, row.reader_position, override=override)


def name_of(caller: Principal, names: Names | None) -> str:
    """What history calls an administrator, who may be none of a site's people. Ask before a transaction."""
    if names is None or caller.user_id is None or caller.role is not Role.ADMIN:
        return _ADMINISTRATOR
    return names.of(caller.user_id) or _ADMINISTRATOR


def knows_employer(who: Actor, user_id: UUID | None) -> bool:
    """Whether somebody is told whom a person of their site works for."""
    return who.role in (None, *INTERNAL) or who.is_person(user_id) or who.override


def require_manager(who: Actor) -> None:
    """Raise `Forbidden` for whoever is neither a manager of the site nor an administrator."""
    if who.role is not SiteRole.MANAGER and not who.override:
        raise Forbidden("Only a manager of the site may do this.")


def found(people: PeopleDirectory, named: PersonNamed, *within: str) -> Person:
    """The person who is named, in a body or `within` fields of it. Raises `UnknownPerson` and `PeopleUnavailable`."""
    person = people.find(email=named.email, id=named.user_id)
    if person is None:
        raise _unknown(named, *within)
    return person


def require_alive(session: Session, person: Person, named: PersonNamed, *within: str) -> None:
    """Raise `UnknownPerson` if their account was deleted since they were found; it stays until the transaction ends.

    Before a site is held, as the deletion of an account is ordered.
    """
    if tombstones.buried(session, [person.id]):
        raise _unknown(named, *within)


def join(
    session: Session, site_id: UUID, person: Person, named: PersonNamed, role: str, seq: int, moment: datetime
) -> None:
    """Make somebody one of the people of a site that is held. Raises `MemberExists` when the transaction ends."""
    members.add(
        session,
        {
            "site_id": site_id,
            "user_id": person.id,
            "role": role,
            "organisation": named.organisation,
            "position": named.position,
            "name": person.name,
            "disabled": False,
            "changed_seq": seq,
            "created_at": moment,
            "updated_at": moment,
        },
    )
    outbox.add_all(session, [events.membership_changed(site_id, person.id, True, moment)])


def _unknown(named: PersonNamed, *within: str) -> UnknownPerson:
    return UnknownPerson(".".join((*within, "email" if named.user_id is None else "user_id")))


class Members:
    """The use cases; thread-safe."""

    def __init__(self, database: Database, people: PeopleDirectory, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._people = people
        self._clock = clock

    def search(self, site_id: UUID, query: MemberQuery, caller: Principal) -> MemberPage:
        """Return some of a site's people to one of them. Raises `SiteNotFound`."""
        who = actor(self._database, site_id, caller)
        rows, total = members.search(self._database, site_id, query.limit, query.offset)
        return MemberPage.unchecked(
            members=[_view(row, who) for row in rows], total=total, limit=query.limit, offset=query.offset
        )

    def add(self, site_id: UUID, wanted: MemberCreate, caller: Principal) -> MemberView:
        """Make somebody one of a site's people.

        Raises `SiteNotFound`, `Forbidden`, `UnknownPerson`, `MemberExists` and `PeopleUnavailable`, with nothing
        stored.
        """
        # First, so that only a manager can ask, and nothing waits in the database while another service answers.
        require_manager(actor(self._database, site_id, caller))
        person = found(self._people, wanted)
        with self._database.transaction() as session:
            require_alive(session, person, wanted)
            site = sites.begin(session, site_id, self._clock())
            who = actor(session, site_id, caller)
            require_manager(who)
            join(session, site_id, person, wanted, wanted.role, site.change_seq, self._clock())
            row = members.held(session, site_id, person.id)
        return _view(row, who)

    def update(
        self, site_id: UUID, user_id: UUID, change: MemberUpdate, caller: Principal, if_match: IfMatch = ANY_STATE
    ) -> MemberView:
        """Change role, organisation or position of one of a site's people.

        Raises `SiteNotFound`, `MemberNotFound`, `Forbidden`, `PreconditionFailed` and `LastManager`.
        """
        with self._database.transaction() as session:
            site = sites.begin(session, site_id, self._clock())
            who = actor(session, site_id, caller)
            require_manager(who)
            row = members.held(session, site_id, user_id)
            if_match.require(_view(row, who))
            changed = {name: value for name, value in change.named().items() if value != getattr(row, name)}
            if changed.get("role", SiteRole.MANAGER) != SiteRole.MANAGER:
                _require_another_manager(session, row)
            if changed.get("role") in (SiteRole.EXECUTIVE, SiteRole.CUSTOMER):
                leave(session, site_id, user_id, self._clock())
            if changed.keys() & {"role", "organisation"}:
                # What they may see depends on these.
                changed["changed_seq"] = site.change_seq
            if changed:
                changed["updated_at"] = max(self._clock(), row.created_at)
                members.update_held(session, site_id, user_id, changed)
                row = members.held(session, site_id, user_id)
        return _view(row, who)

    def remove(self, site_id: UUID, user_id: UUID, caller: Principal, if_match: IfMatch = ANY_STATE) -> MemberView:
        """Remove somebody from a site, or leave it. Raises as `update` does."""
        with self._database.transaction() as session:
            sites.begin(session, site_id, self._clock())
            who = actor(session, site_id, caller)
            if not who.is_person(user_id):
                require_manager(who)
            row = members.held(session, site_id, user_id)
            view = _view(row, who)
            if_match.require(view)
            _require_another_manager(session, row)
            leave(session, site_id, user_id, self._clock())
            members.remove(session, site_id, user_id)
            outbox.add_all(session, [events.membership_changed(site_id, user_id, False, self._clock())])
        return view


def _require_another_manager(session: Session, row: Any) -> None:
    """Raise `LastManager` if this is the last one who may log in."""
    counts = row.role == SiteRole.MANAGER and not row.disabled
    if counts and not members.has_another_manager(session, row.site_id, row.user_id):
        raise LastManager


def _view(row: Any, who: Actor) -> MemberView:
    values = {name: getattr(row, name) for name in MemberView.model_fields}
    if not knows_employer(who, row.user_id):
        values |= {"organisation": None, "position": None}
    return MemberView.unchecked(**values)
