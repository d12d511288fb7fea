"""The work items' routes: parse, call, answer. Rules and queries are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from service_sites.errors import ReasonRequired, SiteNotFound, StepNotPossible, WorkItemNotFound
from service_sites.schemas.history import HistoryPage, HistoryQuery
from service_sites.schemas.items import (
    CustomerWorkItemView,
    WorkItemCreate,
    WorkItemDelete,
    WorkItemPage,
    WorkItemPut,
    WorkItemQuery,
    WorkItemView,
)
from service_sites.use_cases.items import WorkItems
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web import idempotency
from servicekit.web.preconditions import IfMatch
from servicekit.web.routes import Answer, Routes
from servicekit.wire.errors import Forbidden, IdempotencyKeyReused, PreconditionRequired

_REFUSALS = (Forbidden, ReasonRequired)


def item_routes(items: WorkItems) -> Routes:
    """Declare the operations on work items."""
    api = Routes("work items")

    @api.post(
        "/sites/{id}/work-items",
        action=Action.CHANGE_SITES,
        status=201,
        errors=(SiteNotFound, *_REFUSALS, WorkItemNotFound, IdempotencyKeyReused),
        headers=idempotency.HEADERS,
    )
    def create_work_item(
        id: UUID, body: WorkItemCreate, headers: Mapping[str, str | None], caller: Principal
    ) -> Answer[WorkItemView | CustomerWorkItemView]:
        """Make a work item: a defect or a task by an engineer or manager, a remark by a customer.

        A repeated Idempotency-Key answers with the item made before and `Idempotency-Replayed: true`; with 404 when
        that was deleted.
        """
        made = items.create(id, body, caller, idempotency.request_key(headers, body))
        return Answer(made.view, headers={"Location": f"/work-items/{made.view.id}", **made.headers})

    @api.get("/work-items", action=Action.READ_SITES, shared="by caller")
    def list_work_items(query: WorkItemQuery, caller: Principal) -> WorkItemPage:
        """List the work items that you see, on one site or all, the newest first unless sorted otherwise."""
        return items.search(query, caller)

    @api.get("/work-items/{id}", action=Action.READ_SITES, errors=(WorkItemNotFound,), shared="by caller")
    def get_work_item(id: UUID, caller: Principal) -> WorkItemView | CustomerWorkItemView:
        """Show one work item; to a customer, what they are told of it."""
        return items.get(id, caller)

    @api.put(
        "/work-items/{id}",
        action=Action.CHANGE_SITES,
        errors=(SiteNotFound, WorkItemNotFound, *_REFUSALS, StepNotPossible, PreconditionRequired),
    )
    def update_work_item(
        id: UUID, body: WorkItemPut, if_match: IfMatch, caller: Principal
    ) -> Answer[WorkItemView | CustomerWorkItemView]:
        """Make a work item under an id of your own, or, with If-Match, change the fields that are named.

        The same request again answers as the first, with `Idempotency-Replayed: true`. Another one without If-Match is
        a 428; with the ETag of an older state a 412 that names what has changed since, and has the item as `present`.
        """
        made, is_new = items.put(id, body, if_match, caller)
        location = {"Location": f"/work-items/{id}"} if is_new else {}
        return Answer(made.view, status=201 if is_new else 200, headers={**location, **made.headers})

    @api.delete(
        "/work-items/{id}",
        action=Action.CHANGE_SITES,
        errors=(WorkItemNotFound, *_REFUSALS, StepNotPossible, PreconditionRequired),
    )
    def delete_work_item(
        id: UUID, query: WorkItemDelete, if_match: IfMatch, caller: Principal
    ) -> WorkItemView | CustomerWorkItemView:
        """Delete a draft of your own; the answer is the item as it was. Its number is given to no other."""
        return items.delete(id, query.reason, if_match, caller)

    @api.get("/work-items/{id}/history", action=Action.READ_SITES, errors=(WorkItemNotFound, Forbidden))
    def list_work_item_history(id: UUID, query: HistoryQuery, caller: Principal) -> HistoryPage:
        """Tell what happened to a work item, the oldest first, with names and roles as they were.

        A contractor is told what concerns them: what they did, and what happened while the item was theirs or their
        organisation's. Customers are told nothing.
        """
        return items.history(id, query, caller)

    return api
