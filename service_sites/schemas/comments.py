"""Requests and answers about what people say of work items, who watches them, and what they are linked with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from service_sites.schemas.items import PersonView
from service_sites.schemas.text import Sentences
from servicekit.web.schemas import Body, Id, Query, QueryInt, Timestamp, View

AudienceWord = Literal["internal", "parties", "customer"]
LinkKind = Literal["order", "task", "item"]
Said = Annotated[Sentences, StringConstraints(min_length=1, max_length=10_000)]


class CommentCreate(Body):
    """A comment. Who reads it cannot be changed afterwards."""

    example: ClassVar[Mapping[str, Any]] = {"text": "The scaffolding goes on Friday.", "audience": "parties"}

    text: Said
    audience: AudienceWord | None = Field(
        default=None,
        description="internal: the site's engineers, managers and executives; parties: contractors too, of items that "
        "they see; customer: everybody who sees the item. Left out, it is the first that the author belongs to",
    )
    op_id: Id | None = Field(default=None, description="made by the client: sent again, the answer is the same")


class CommentUpdate(Body):
    """Another wording."""

    example: ClassVar[Mapping[str, Any]] = {"text": "The scaffolding goes on Thursday."}

    text: Said


class CommentQuery(Query):
    """Which part of an item's comments is wanted."""

    limit: Annotated[QueryInt, Field(ge=1, le=100)] = Field(default=50, description="how many at most")
    after: Id | None = Field(default=None, description="the `next` of the page before")


class CommentView(View):
    """A comment, with its author's name and role as they were."""

    id: UUID
    item_id: UUID
    author: PersonView
    author_role: str = Field(description="on the site; empty: an administrator who was none of its people")
    author_organisation: str | None = Field(description="null where customers and contractors read others")
    audience: AudienceWord
    text: str
    created_at: Timestamp
    edited_at: Timestamp | None


class CommentPage(View):
    """A part of an item's comments, the oldest first."""

    comments: list[CommentView]
    next: UUID | None = Field(description="send it as `after` to get the next page; null on the last")


class WatcherList(View):
    """Who watches a work item, by name."""

    watchers: list[PersonView]


class ItemLinkView(View):
    """What a work item has to do with something else."""

    kind: LinkKind
    target_id: UUID
    created_at: Timestamp


class LinkList(View):
    """The links of a work item, the oldest first."""

    links: list[ItemLinkView]
