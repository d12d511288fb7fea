"""The routes of sites: parse, call, answer. Rules and queries are elsewhere."""

from __future__ import annotations

from uuid import UUID

from service_sites.errors import PeopleUnavailable, SiteKeyTaken, SiteNotFound, UnknownPerson
from service_sites.schemas.sites import SiteCreate, SitePage, SiteQuery, SiteUpdate, SiteView
from service_sites.use_cases.sites import Sites
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web.preconditions import IfMatch
from servicekit.web.routes import Answer, Routes
from servicekit.wire.errors import BadGateway, Forbidden


def site_routes(sites: Sites) -> Routes:
    """Declare the operations on sites."""
    api = Routes("sites")

    @api.get("/sites", action=Action.READ_SITES)
    def list_sites(query: SiteQuery, caller: Principal) -> SitePage:
        """List the sites that you work on, by their keys; whoever may read everything is shown all."""
        return sites.search(query, caller)

    @api.post(
        "/sites",
        action=Action.CREATE_SITES,
        status=201,
        errors=(UnknownPerson, SiteKeyTaken, PeopleUnavailable, BadGateway),
    )
    def create_site(body: SiteCreate, caller: Principal) -> Answer[SiteView]:
        """Open a site, with a manager who has an account."""
        made = sites.create(body, caller)
        return Answer(made, headers={"Location": f"/sites/{made.id}"})

    @api.get("/sites/{id}", action=Action.READ_SITES, errors=(SiteNotFound,))
    def get_site(id: UUID, caller: Principal) -> SiteView:
        """Show one site."""
        return sites.get(id, caller)

    @api.put("/sites/{id}", action=Action.CHANGE_SITES, errors=(SiteNotFound, Forbidden))
    def update_site(id: UUID, body: SiteUpdate, if_match: IfMatch, caller: Principal) -> SiteView:
        """Change the named fields of a site, as its manager."""
        return sites.update(id, body, caller, if_match)

    return api
