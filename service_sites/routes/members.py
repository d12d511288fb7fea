"""The routes of the people of sites: parse, call, answer."""

from __future__ import annotations

from uuid import UUID

from service_sites.errors import (
    LastManager,
    MemberExists,
    MemberNotFound,
    PeopleUnavailable,
    SiteNotFound,
    UnknownPerson,
)
from service_sites.schemas.members import MemberCreate, MemberPage, MemberQuery, MemberUpdate, MemberView
from service_sites.use_cases.members import Members
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web.preconditions import IfMatch
from servicekit.web.routes import Answer, Routes
from servicekit.wire.errors import BadGateway, Forbidden


def member_routes(members: Members) -> Routes:
    """Declare the operations on members."""
    api = Routes("sites")

    @api.get("/sites/{id}/members", action=Action.READ_SITES, errors=(SiteNotFound,))
    def list_members(id: UUID, query: MemberQuery, caller: Principal) -> MemberPage:
        """List the people of a site by their names, to one of them."""
        return members.search(id, query, caller)

    @api.post(
        "/sites/{id}/members",
        action=Action.CHANGE_SITES,
        status=201,
        errors=(SiteNotFound, Forbidden, UnknownPerson, MemberExists, PeopleUnavailable, BadGateway),
    )
    def add_member(id: UUID, body: MemberCreate, caller: Principal) -> Answer[MemberView]:
        """Add somebody who has an account to the people of a site, as its manager."""
        made = members.add(id, body, caller)
        return Answer(made, headers={"Location": f"/sites/{id}/members/{made.user_id}"})

    @api.put(
        "/sites/{id}/members/{user_id}",
        action=Action.CHANGE_SITES,
        errors=(SiteNotFound, MemberNotFound, Forbidden, LastManager),
    )
    def update_member(id: UUID, user_id: UUID, body: MemberUpdate, if_match: IfMatch, caller: Principal) -> MemberView:
        """Change what somebody is on a site, as its manager."""
        return members.update(id, user_id, body, caller, if_match)

    @api.delete(
        "/sites/{id}/members/{user_id}",
        action=Action.CHANGE_SITES,
        errors=(SiteNotFound, MemberNotFound, Forbidden, LastManager),
    )
    def remove_member(id: UUID, user_id: UUID, if_match: IfMatch, caller: Principal) -> MemberView:
        """Remove somebody from a site, as its manager, or leave it yourself; the answer is the membership as it was."""
        return members.remove(id, user_id, caller, if_match)

    return api
