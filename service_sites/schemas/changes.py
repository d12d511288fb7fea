"""What a client that keeps a copy of a site's items has to know."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from service_sites.schemas.comments import CommentView
from service_sites.schemas.items import CustomerWorkItemView, WorkItemView
from servicekit.web.schemas import Query, QueryInt, QueryText, View


class ChangesQuery(Query):
    """What the client knows already."""

    since: QueryText | None = Field(default=None, description="the `cursor` of the last answer; left out: nothing")
    limit: Annotated[QueryInt, Field(ge=1, le=500)] = Field(
        default=100, description="how many at most; an answer ends early behind 1 MiB of items or of comments"
    )


class ChangeView(View):
    """One change; what it is about has its own kind."""

    kind: Literal["item", "comment", "gone"] = Field(
        description="item: as it is now; comment: as it is now; gone: you no longer see this item"
    )
    id: UUID = Field(description="of the item or the comment")
    item: WorkItemView | CustomerWorkItemView | None
    comment: CommentView | None


class ChangesView(View):
    """What changed, in the order in which it did."""

    changes: list[ChangeView]
    cursor: str = Field(description="send it as `since` the next time")
    more: bool = Field(description="ask again at once, also if there are no changes in this answer")
    reset: bool = Field(description="your rights have changed: forget what you have, and begin with this answer")
