"""The use cases of sites: one method, one transaction."""

from __future__ import annotations

from typing import Any

from service_sites.domain.people import SiteRole
from service_sites.persistence import sites
from service_sites.schemas.sites import DeadlineRulesView, SitePage, SiteQuery, SiteView
from servicekit.database.engine import Database
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action


class Sites:
    """The use cases; thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def search(self, query: SiteQuery, caller: Principal) -> SitePage:
        """Return one page of the sites whose people the caller belongs to; of all, to whoever may read all."""
        reach = caller.reach(Action.READ_SITES)
        found = sites.search(self._database, caller.user_id, query.limit, query.offset, reach=reach)
        views = [_view(row) for row in found.rows]
        return SitePage.unchecked(total=found.total, limit=query.limit, offset=query.offset, sites=views)


def _view(row: Any) -> SiteView:
    values = {name: getattr(row, name) for name in SiteView.model_fields}
    rules = {name: row.deadline_rules.get(name) for name in DeadlineRulesView.model_fields}
    return SiteView.unchecked(
        **values
        | {
            "deadline_rules": DeadlineRulesView.unchecked(**rules),
            "role": None if row.role is None else SiteRole(row.role),
        }
    )
