"""The routes of what people say of work items, who watches them, and what they are linked with: parse, call, answer."""

from __future__ import annotations

from uuid import UUID

from service_sites.errors import (
    CommentNotFound,
    CommentSettled,
    LinkNotFound,
    OperationReused,
    WorkItemNotFound,
)
from service_sites.schemas.comments import (
    CommentCreate,
    CommentPage,
    CommentQuery,
    CommentUpdate,
    CommentView,
    LinkList,
    WatcherList,
)
from service_sites.use_cases.comments import Comments, link_kind
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web.routes import Answer, Routes
from servicekit.wire.errors import Forbidden


def comment_routes(comments: Comments) -> Routes:
    """Declare the operations on comments, watchers and links."""
    api = Routes("comments")

    @api.get("/work-items/{id}/comments", action=Action.READ_SITES, errors=(WorkItemNotFound,), shared="by caller")
    def list_comments(id: UUID, query: CommentQuery, caller: Principal) -> CommentPage:
        """List the comments on a work item for the audiences that you belong to, the oldest first."""
        return comments.listed(id, query, caller)

    @api.post(
        "/work-items/{id}/comments",
        action=Action.CHANGE_SITES,
        status=201,
        errors=(WorkItemNotFound, Forbidden, OperationReused),
    )
    def create_comment(id: UUID, body: CommentCreate, caller: Principal) -> Answer[CommentView]:
        """Comment on a work item, for an audience that you belong to.

        The same `op_id` and body again answer as the first time, with `Idempotency-Replayed: true`.
        """
        made = comments.add(id, body, caller)
        return Answer(made.view, headers=made.headers)

    @api.put(
        "/work-items/{id}/comments/{comment_id}",
        action=Action.CHANGE_SITES,
        errors=(WorkItemNotFound, CommentNotFound, CommentSettled, Forbidden),
    )
    def update_comment(id: UUID, comment_id: UUID, body: CommentUpdate, caller: Principal) -> CommentView:
        """Change the wording of your own comment, within 15 minutes."""
        return comments.reword(id, comment_id, body, caller)

    @api.get("/work-items/{id}/watchers", action=Action.READ_SITES, errors=(WorkItemNotFound, Forbidden))
    def list_watchers(id: UUID, caller: Principal) -> WatcherList:
        """List who watches a work item."""
        return comments.watchers(id, caller)

    @api.put("/work-items/{id}/watchers/{user_id}", action=Action.CHANGE_SITES, errors=(WorkItemNotFound, Forbidden))
    def update_watcher(id: UUID, user_id: UUID, caller: Principal) -> WatcherList:
        """Watch a work item, or as an engineer or manager let another of the site's people watch it."""
        return comments.watch(id, user_id, caller, on=True)

    @api.delete("/work-items/{id}/watchers/{user_id}", action=Action.CHANGE_SITES, errors=(WorkItemNotFound, Forbidden))
    def remove_watcher(id: UUID, user_id: UUID, caller: Principal) -> WatcherList:
        """Stop watching a work item, or as an engineer or manager take another of its watchers off."""
        return comments.watch(id, user_id, caller, on=False)

    @api.get("/work-items/{id}/links", action=Action.READ_SITES, errors=(WorkItemNotFound, Forbidden))
    def list_links(id: UUID, caller: Principal) -> LinkList:
        """List the orders, tasks and other work items that a work item is linked with."""
        return comments.links(id, caller)

    @api.put(
        "/work-items/{id}/links/{kind}/{target_id}", action=Action.CHANGE_SITES, errors=(WorkItemNotFound, Forbidden)
    )
    def update_link(id: UUID, kind: str, target_id: UUID, caller: Principal) -> LinkList:
        """Link a work item with an `order`, a `task` or an `item` of its site. Orders and tasks are not looked up."""
        return comments.link(id, link_kind(kind), target_id, caller)

    @api.delete(
        "/work-items/{id}/links/{kind}/{target_id}",
        action=Action.CHANGE_SITES,
        errors=(WorkItemNotFound, LinkNotFound, Forbidden),
    )
    def remove_link(id: UUID, kind: str, target_id: UUID, caller: Principal) -> LinkList:
        """Remove a link."""
        return comments.unlink(id, link_kind(kind), target_id, caller)

    return api
