"""Every query about what people say of work items, who watches them, and what they are linked with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Integer, Text, Uuid, bindparam, delete, insert, select, tuple_, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as insert_unless
from sqlalchemy.orm import Session

from service_sites.persistence.sites import run
from service_sites.tables import Comment, Link, Membership, Watcher
from servicekit.database.engine import Database
from servicekit.database.statement import Statement

_ITEM = bindparam("item_id", type_=Uuid())
_COMMENT: list[Any] = [*Comment.__table__.columns]
_HEARD = Comment.audience == bindparam("audiences", type_=ARRAY(Text)).any_()
_LIMIT = bindparam("limit", type_=Integer())
_PAGE = select(*_COMMENT).where(Comment.item_id == _ITEM, _HEARD).order_by(Comment.id).limit(_LIMIT)
_FIRST = Statement(_PAGE)
_NEXT = Statement(_PAGE.where(Comment.id > bindparam("after")))
_VALUES = {column.key: bindparam(column.key, type_=column.type) for column in _COMMENT}
_ADD = Statement(insert(Comment).values(_VALUES).returning(Comment.id))
_ONE = select(*_COMMENT).where(Comment.id == bindparam("id"), Comment.item_id == _ITEM, _HEARD)
_LOCK = Statement(_ONE.with_for_update())
_UPDATE = Statement(
    update(Comment)
    .where(Comment.id == bindparam("comment_id"))
    .values(text=bindparam("text"), edited_at=bindparam("edited_at"), change_seq=bindparam("change_seq"))
    .returning(*_COMMENT)
)
_WATCHER: list[Any] = [Watcher.user_id, Membership.name]
_WATCHERS = Statement(
    select(*_WATCHER)
    .join(Membership, Membership.user_id == Watcher.user_id)
    .where(Watcher.item_id == _ITEM, Membership.site_id == bindparam("site_id"))
    .order_by(Membership.name, Watcher.user_id)
)
_LINK: list[Any] = [Link.kind, Link.target_id, Link.created_at]
_LINKS = Statement(select(*_LINK).where(Link.item_id == _ITEM).order_by(Link.created_at, Link.kind, Link.target_id))


def page(database: Database, item: Any, audiences: Collection[str], after: UUID | None, limit: int) -> Sequence[Any]:
    """What was said of an item that was found, to some of these audiences, the oldest first."""
    values = {"item_id": item.id, "audiences": list(audiences), "limit": limit}
    return database.rows(_FIRST, values) if after is None else database.rows(_NEXT, {**values, "after": after})


def add(session: Session, values: Mapping[str, Any]) -> None:
    """Insert a comment."""
    run(session, _ADD, values)


def lock(session: Session, item: Any, comment_id: UUID, audiences: Collection[str]) -> Any | None:
    """One comment on a locked item, if it is for some of these audiences."""
    values = {"item_id": item.id, "id": comment_id, "audiences": list(audiences)}
    return next(iter(run(session, _LOCK, values)), None)


def reword(session: Session, comment: Any, text: str, change_seq: int, now: datetime) -> Any:
    """Change a locked comment, and return it."""
    values = {"comment_id": comment.id, "text": text, "edited_at": now, "change_seq": change_seq}
    return run(session, _UPDATE, values)[0]


def watchers(source: Session | Database, item: Any) -> Sequence[Any]:
    """The people of an item's site who watch it, by name."""
    return run(source, _WATCHERS, {"item_id": item.id, "site_id": item.site_id})


def watch(session: Session, item: Any, user_id: UUID, now: datetime) -> None:
    """Let somebody watch an item, if they do not already."""
    session.execute(
        insert_unless(Watcher).values(item_id=item.id, user_id=user_id, created_at=now).on_conflict_do_nothing()
    )


def unwatch(session: Session, item: Any, user_id: UUID) -> None:
    """Stop somebody watching an item."""
    session.execute(delete(Watcher).where(Watcher.item_id == item.id, Watcher.user_id == user_id))


def forget_watcher(session: Session, user_id: UUID) -> None:
    """Stop somebody watching anything."""
    session.execute(delete(Watcher).where(Watcher.user_id == user_id))


def links(source: Session | Database, item: Any) -> Sequence[Any]:
    """What an item is linked with, the oldest link first."""
    return run(source, _LINKS, {"item_id": item.id})


def link(session: Session, item: Any, kind: str, target_id: UUID, user_id: UUID | None, now: datetime) -> None:
    """Link an item, unless it has the link already."""
    values = {"item_id": item.id, "kind": kind, "target_id": target_id, "created_at": now, "created_by": user_id}
    session.execute(insert_unless(Link).values(values).on_conflict_do_nothing())


def unlink(session: Session, item: Any, kind: str, target_id: UUID) -> bool:
    """Remove a link, if it is there."""
    is_it = tuple_(Link.item_id, Link.kind, Link.target_id) == tuple_(item.id, kind, target_id)
    return session.execute(delete(Link).where(is_it).returning(Link.item_id)).first() is not None
