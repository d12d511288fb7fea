"""What people say of work items, who watches them, and what they are linked with: one method, one transaction."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, get_args
from uuid import UUID

from sqlalchemy.orm import Session

from service_sites.domain.people import INSPECTORS, Actor, SiteRole
from service_sites.errors import CommentNotFound, CommentSettled, LinkNotFound
from service_sites.persistence import comments, items, members, operations, sites
from service_sites.persistence.operations import Asked
from service_sites.schemas.comments import (
    AudienceWord,
    CommentCreate,
    CommentPage,
    CommentQuery,
    CommentUpdate,
    CommentView,
    ItemLinkView,
    LinkKind,
    LinkList,
    WatcherList,
)
from service_sites.schemas.items import PersonView
from service_sites.use_cases.members import actor_of, knows_employer, name_of
from service_sites.users_client import Names
from servicekit.database.engine import Database
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.process.clock import Clock, utc_now
from servicekit.process.ids import new_id
from servicekit.web.encoders import encoder_of
from servicekit.web.idempotency import Made
from servicekit.wire.errors import Forbidden, Invalid

#: How long a comment may be reworded.
REWORDED_WITHIN = timedelta(minutes=15)
#: The most links of one item.
MOST_LINKS = 100
_ALL: tuple[AudienceWord, ...] = ("internal", "parties", "customer")


def audiences_of(who: Actor) -> tuple[AudienceWord, ...]:
    """The audiences that somebody belongs to on a site, and the one they speak to unless they say otherwise first."""
    if who.role is SiteRole.CUSTOMER:
        return ("customer",)
    return ("parties", "customer") if who.role is SiteRole.CONTRACTOR else _ALL


def comment_view(row: Any, who: Actor) -> CommentView:
    """A comment as somebody who may read it is shown it."""
    values = {name: getattr(row, name) for name in CommentView.model_fields if name != "author"}
    if not knows_employer(who, row.author_id):
        values["author_organisation"] = None
    return CommentView.unchecked(author=PersonView.unchecked(id=row.author_id, name=row.author_name), **values)


def link_kind(word: str) -> LinkKind:
    """Read what a link leads to. Raises `Invalid`."""
    kinds: tuple[LinkKind, ...] = get_args(LinkKind)
    for kind in kinds:
        if kind == word:
            return kind
    raise Invalid.field("kind", f"must be one of {', '.join(kinds)}")


class Comments:
    """The use cases; thread-safe."""

    def __init__(self, database: Database, names: Names | None = None, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._names = names
        self._clock = clock

    def listed(self, item_id: UUID, query: CommentQuery, caller: Principal) -> CommentPage:
        """Return what was said of an item to its reader, the oldest first. Raises `WorkItemNotFound`."""
        item, who = self._find(item_id, caller)
        rows = comments.page(self._database, item, audiences_of(who), query.after, query.limit + 1)
        more = len(rows) > query.limit
        shown = [comment_view(row, who) for row in rows[: query.limit]]
        return CommentPage.unchecked(comments=shown, next=shown[-1].id if more else None)

    def add(self, item_id: UUID, wanted: CommentCreate, caller: Principal) -> Made[CommentView]:
        """Say something of an item, or return what the same request said before.

        Raises `WorkItemNotFound`, `OperationReused`, and `Forbidden` for an audience that the caller is not of.
        """
        said = {"item": item_id, "comment": wanted.text, "audience": wanted.audience}
        asked = None if wanted.op_id is None else Asked.of(wanted.op_id, caller.user_id, said)
        found, who = self._find(item_id, caller)
        if asked is not None and (answer := operations.find_answer(self._database, asked)) is not None:
            return _again(answer, who)
        now, name = self._clock(), name_of(caller, self._names)
        with self._database.transaction() as session:
            site = sites.begin(session, found.site_id, now)
            item, who = self._lock(session, item_id, caller, name)
            if asked is not None and (answer := operations.find_answer(session, asked)) is not None:
                session.rollback()
                return _again(answer, who)
            audience = wanted.audience or audiences_of(who)[0]
            _require_heard(audience, who)
            values = {
                "id": new_id(),
                "item_id": item.id,
                "site_id": site.id,
                "change_seq": site.change_seq,
                "author_id": who.user_id,
                "author_name": who.name,
                "author_role": who.role or "",
                "author_organisation": who.organisation,
                "audience": audience,
                "text": wanted.text,
                "created_at": now,
                "edited_at": None,
            }
            comments.add(session, values)
            author = PersonView.unchecked(id=who.user_id, name=who.name)
            shown = {name: value for name, value in values.items() if name in CommentView.model_fields}
            view = CommentView.unchecked(author=author, **shown)
            if asked is not None:
                operations.remember(session, asked, encoder_of(CommentView)(view).encode(), now)
        return Made(view)

    def reword(self, item_id: UUID, comment_id: UUID, wanted: CommentUpdate, caller: Principal) -> CommentView:
        """Change the caller's own comment while it is new.

        Raises `WorkItemNotFound`, `CommentNotFound`, `CommentSettled`, and `Forbidden` for that of somebody else.
        """
        site_id = self._find(item_id, caller)[0].site_id
        now = self._clock()
        with self._database.transaction() as session:
            site = sites.begin(session, site_id, now)
            item, who = self._lock(session, item_id, caller)
            comment = comments.lock(session, item, comment_id, audiences_of(who))
            if comment is None:
                raise CommentNotFound
            if comment.author_id != caller.user_id:
                raise Forbidden("Only its author may change a comment.")
            if now - comment.created_at > REWORDED_WITHIN:
                raise CommentSettled
            if comment.text == wanted.text:
                session.rollback()
                return comment_view(comment, who)
            return comment_view(comments.reword(session, comment, wanted.text, site.change_seq, now), who)

    def watchers(self, item_id: UUID, caller: Principal) -> WatcherList:
        """Return who watches an item. Raises `WorkItemNotFound`; customers get `Forbidden`."""
        item, who = self._find(item_id, caller)
        _refuse_customers(who)
        return _watchers(self._database, item)

    def watch(self, item_id: UUID, user_id: UUID, caller: Principal, *, on: bool) -> WatcherList:
        """Let somebody watch an item, or no longer.

        Raises `WorkItemNotFound`; `Forbidden` for customers, and for others than engineers and managers unless it is
        themselves; `Invalid` for somebody who is none of the site's people.
        """
        now = self._clock()
        with self._database.transaction() as session:
            item, who = self._lock(session, item_id, caller)
            _refuse_customers(who)
            if not (who.is_person(user_id) or who.role in INSPECTORS or who.override):
                raise Forbidden("Only engineers and managers may choose who else watches a work item.")
            if not on:
                comments.unwatch(session, item, user_id)
            elif members.enabled(session, item.site_id, user_id) is None:
                raise Invalid.field("user_id", "must be one of the site's people")
            else:
                comments.watch(session, item, user_id, now)
            return _watchers(session, item)

    def links(self, item_id: UUID, caller: Principal) -> LinkList:
        """Return what an item is linked with, but for items that the caller does not see.

        Raises `WorkItemNotFound`; customers get `Forbidden`.
        """
        item, who = self._find(item_id, caller)
        _refuse_customers(who)
        rows = comments.links(self._database, item)
        others = {row.target_id for row in rows if row.kind == "item"}
        seen = items.visible(self._database, others, caller.user_id, reach=caller.reach(Action.READ_SITES))
        shown = [row for row in rows if row.kind != "item" or row.target_id in seen]
        return LinkList.unchecked(links=[ItemLinkView.unchecked(**row._asdict()) for row in shown])

    def link(self, item_id: UUID, kind: LinkKind, target_id: UUID, caller: Principal) -> LinkList:
        """Link an item with an order, a task or another item that the caller sees; orders and tasks are not asked.

        Raises `WorkItemNotFound`; `Forbidden` for others than engineers and managers; `Invalid` for the item itself,
        one that the caller does not see, and too many.
        """
        now = self._clock()
        with self._database.transaction() as session:
            item = self._lock_for_links(session, item_id, caller)
            if kind == "item":
                seen = items.find_beside(
                    session, item, target_id, caller.user_id, now, reach=caller.reach(Action.READ_SITES)
                )
                if seen is None or target_id == item_id:
                    raise Invalid.field("target_id", "must be another work item of the site")
            linked = {(row.kind, row.target_id) for row in comments.links(session, item)}
            if len(linked | {(kind, target_id)}) > MOST_LINKS:
                raise Invalid.field("target_id", f"a work item has at most {MOST_LINKS} links")
            comments.link(session, item, kind, target_id, caller.user_id, now)
        return self.links(item_id, caller)

    def unlink(self, item_id: UUID, kind: LinkKind, target_id: UUID, caller: Principal) -> LinkList:
        """Remove a link. Raises as `link` does, and `LinkNotFound`."""
        with self._database.transaction() as session:
            item = self._lock_for_links(session, item_id, caller)
            if not comments.unlink(session, item, kind, target_id):
                raise LinkNotFound
        return self.links(item_id, caller)

    def _find(self, item_id: UUID, caller: Principal) -> tuple[Any, Actor]:
        reach = caller.reach(Action.READ_SITES)
        item = items.find(self._database, item_id, caller.user_id, self._clock(), reach=reach)
        return item, actor_of(item, caller)

    def _lock(
        self, session: Session, item_id: UUID, caller: Principal, name: str = "administrator"
    ) -> tuple[Any, Actor]:
        reach = caller.reach(Action.CHANGE_SITES)
        item = items.lock(session, item_id, caller.user_id, self._clock(), reach=reach)
        return item, actor_of(item, caller, name)

    def _lock_for_links(self, session: Session, item_id: UUID, caller: Principal) -> Any:
        item, who = self._lock(session, item_id, caller)
        if not (who.role in INSPECTORS or who.override):
            raise Forbidden("Only engineers and managers may link a work item.")
        return item


def _again(answer: bytes, who: Actor) -> Made[CommentView]:
    """What was answered before. Raises `Forbidden` for who is no longer of the comment's audience."""
    view = CommentView.model_validate_json(answer)
    _require_heard(view.audience, who)
    return Made(view, replayed=True)


def _require_heard(audience: AudienceWord, who: Actor) -> None:
    heard = audiences_of(who)
    if audience not in heard:
        raise Forbidden.field("audience", f"must be one of {', '.join(heard)} for your role on this site")


def _refuse_customers(who: Actor) -> None:
    if who.role is SiteRole.CUSTOMER and not who.override:
        raise Forbidden("Customers are not told who watches a work item, or what it is linked with.")


def _watchers(source: Database | Session, item: Any) -> WatcherList:
    people = [PersonView.unchecked(id=row.user_id, name=row.name) for row in comments.watchers(source, item)]
    return WatcherList.unchecked(watchers=people)
