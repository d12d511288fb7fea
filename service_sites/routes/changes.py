"""The route of a site's changes: parse, call, answer."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from service_sites.errors import SiteNotFound
from service_sites.schemas.changes import ChangesQuery, ChangesView
from service_sites.use_cases.changes import Changes
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web.preconditions import ETAG
from servicekit.web.routes import Answer, Routes

_IF_NONE_MATCH = "If-None-Match"


def change_routes(changes: Changes) -> Routes:
    """Declare the operation."""
    api = Routes("changes")

    @api.get(
        "/sites/{id}/changes",
        action=Action.READ_SITES,
        errors=(SiteNotFound,),
        headers={_IF_NONE_MATCH: "the ETag of the last answer to the same request: 304 while nothing has changed"},
        not_modified="Nothing has changed.",
    )
    def list_changes(
        id: UUID, query: ChangesQuery, headers: Mapping[str, str | None], caller: Principal
    ) -> Answer[ChangesView]:
        """Tell what changed on a site since the last answer, in the order in which it changed.

        That is: work items as they are now, comments on them, and which of them you no longer see. An item that changed
        twice is there once, at its last change; comments from before you saw an item are under its comments. Ask again
        with `cursor` as `since`.
        """
        view, tag = changes.since(id, query, caller, headers[_IF_NONE_MATCH])
        fields = {ETAG: tag, "Cache-Control": "private, no-cache"}
        return Answer(view, headers=fields) if view is not None else Answer(NOTHING_NEW, status=304, headers=fields)

    return api


#: Is not sent.
NOTHING_NEW = ChangesView(changes=[], cursor="", more=False, reset=False)
