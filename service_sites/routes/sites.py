"""The sites' routes: parse, call, answer. Rules and queries are elsewhere."""

from __future__ import annotations

from service_sites.schemas.sites import SitePage, SiteQuery
from service_sites.use_cases.sites import Sites
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web.routes import Routes


def site_routes(sites: Sites) -> Routes:
    """Declare the operations on sites."""
    api = Routes("sites")

    @api.get("/sites", action=Action.READ_SITES)
    def list_sites(query: SiteQuery, caller: Principal) -> SitePage:
        """List the sites that you work on, by their keys; whoever may read everything is shown all."""
        return sites.search(query, caller)

    return api
