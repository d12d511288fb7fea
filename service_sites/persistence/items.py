"""Every query about work items; who sees one, and what is overdue, are said here once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from psycopg2 import IntegrityError
from sqlalchemy import (
    CTE,
    ColumnElement,
    Date,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from service_sites.domain.item import ItemKind, WorkState
from service_sites.domain.people import WORKERS, Actor, SiteRole
from service_sites.domain.visibility import knew_draft, lost_sight
from service_sites.errors import WorkItemNotFound
from service_sites.persistence.sites import READER, SiteNow, Sql, run, today_at
from service_sites.tables import Base, History, Location, Membership, Removal, Site, WorkItem
from servicekit.database.engine import Database, Prepared
from servicekit.database.statement import Statement
from servicekit.identity.reach import Reach
from servicekit.web import idempotency
from servicekit.web.idempotency import RequestKey
from servicekit.wire.caseless import comparable
from servicekit.wire.envelope import dump

Condition = ColumnElement[bool]

#: An item can be late in these: in the others nobody is to do anything, or it waits for who examines it.
_CAN_BE_LATE = (WorkState.OPEN, WorkState.IN_PROGRESS, WorkState.RETURNED, WorkState.DISPUTED)
_USER = bindparam("user_id", type_=Uuid())
_REACH = bindparam("reach", type_=Uuid())
#: In these an item waits for the organisation that is responsible.
_WITH_CONTRACTOR = (WorkState.OPEN, WorkState.IN_PROGRESS, WorkState.RETURNED)
#: Of history's rows, everything but the item's fields: they have columns of their own there, or only say when.
_NOT_TOLD = frozenset(
    {"state", "resolution", "original_due_on", "submitted_at", "first_closed_at", "closed_at", "reopen_count"}
    | {"done_by_id", "done_by_organisation"}
)


def _constant(word: str) -> Sql:
    return literal_column(f"'{word}'", Text())


_DRAFT: Condition = WorkItem.state == _constant(WorkState.DRAFT)
#: Named one by one, as indexes begin with a state.
SUBMITTED: Condition = WorkItem.state.in_([_constant(state) for state in WorkState if state is not WorkState.DRAFT])


def overdue(today: Sql, item: Any = WorkItem) -> Condition:
    """The condition that an item is late: its date has passed at the site, and whoever is to do it has not reported it
    done."""
    return and_(item.state.in_([_constant(state) for state in _CAN_BE_LATE]), item.due_key < today)


def closed_on(time_zone: Sql, item: Any = WorkItem) -> ColumnElement[date]:
    """The date at the site when an item was closed last."""
    return cast(func.timezone(time_zone, item.closed_at), Date())


def works_for(organisation: Sql) -> Condition:
    """The condition that an organisation is to do an item."""
    # An empty name is nobody's.
    return WorkItem.organisation == func.nullif(organisation, _constant(""))


def visible_to(role: SiteRole, user_id: Sql, organisation: Sql) -> Condition:
    """The condition that a member with this role sees an item of their site: `domain.visibility.sees` in SQL."""
    is_author = WorkItem.author_id == user_id
    is_remark = WorkItem.kind == _constant(ItemKind.CUSTOMER_REMARK)
    if role is SiteRole.CONTRACTOR:
        is_theirs = or_(WorkItem.assignee_id == user_id, works_for(organisation))
        return or_(and_(SUBMITTED, is_theirs), and_(_DRAFT, is_author))
    if role is SiteRole.CUSTOMER:
        submitted = and_(SUBMITTED, WorkItem.state != _constant(WorkState.VOID))
        # By themselves, so that indexes serve.
        own = and_(submitted, is_author, is_remark)
        return or_(and_(submitted, WorkItem.visible_to_customer), own, and_(_DRAFT, is_author))
    return or_(*visible_inside(role, user_id))


def visible_inside(role: SiteRole, user_id: Sql) -> list[Condition]:
    """The same for engineers, managers and executives: of these conditions one holds for each item that they see."""
    is_author = WorkItem.author_id == user_id
    is_remark = WorkItem.kind == _constant(ItemKind.CUSTOMER_REMARK)
    theirs = or_(is_author, is_remark) if role is SiteRole.MANAGER else is_author
    return [SUBMITTED, and_(_DRAFT, theirs)]


@dataclass(frozen=True, slots=True)
class Entry:
    """What history says of a change, besides the change itself."""

    step: str
    actor: Actor
    reason: str = ""
    note: str = ""
    #: Whether an administrator did what no role on the site allowed them.
    override: bool = False
    #: By the clock of a phone.
    phone_at: datetime | None = None
    op_id: UUID | None = None
    batch_id: UUID | None = None


def _computed(time_zone: Sql, today: ColumnElement[date], location_id: Sql) -> list[ColumnElement[Any]]:
    """What is shown of an item and not stored with it."""
    name = select(Location.name).where(Location.id == location_id).scalar_subquery()
    return [
        overdue(today).label("overdue"),
        closed_on(time_zone).label("closed_on"),
        name.label("location"),
    ]


_OF_SITE = _computed(
    bindparam("time_zone", type_=Text()), bindparam("today", type_=Date()), bindparam("location_id", type_=Uuid())
)
#: What is read of an item, besides what only serves a search.
_ITEM = [column for column in WorkItem.__table__.columns if column.computed is None and column.key != "title_key"]
_ROLES = {role: visible_to(role, Membership.user_id, Membership.organisation) for role in SiteRole}
#: Of an item beside the membership of whom the parameters `user_id` and `reach` say: that they see it.
REACHED = or_(
    cast(_REACH, Uuid()).is_(None),
    *(and_(Membership.role == _constant(role), condition) for role, condition in _ROLES.items()),
)
_SEEN = (
    select(
        *_ITEM,
        Site.key.label("site_key"),
        today_at(Site.time_zone).label("today"),
        *_computed(Site.time_zone, today_at(Site.time_zone), WorkItem.location_id),
        *READER,
    )
    .join(Site, Site.id == WorkItem.site_id)
    .outerjoin(
        Membership,
        and_(Membership.site_id == WorkItem.site_id, Membership.user_id == _USER),
    )
    .where(REACHED)
)
_FOUND = _SEEN.where(WorkItem.id == bindparam("id"))
_FIND = Statement(_FOUND)
#: To plan it takes five times as long as to run it.
_PLANNED = Prepared.of("find_work_item", _FIND.text, **_FIND.types())
_LOCK = Statement(_FOUND.with_for_update(of=WorkItem))


def _sought(item_id: UUID, user_id: UUID | None, now: datetime, reach: Reach) -> dict[str, Any]:
    return {"id": item_id, "user_id": user_id, "now": now, "reach": reach.owner}


def find(database: Database, item_id: UUID, user_id: UUID | None, now: datetime, *, reach: Reach) -> Any:
    """Return an item that somebody sees, with its site's key and date, and what they are on that site.

    `reach` has their id, or all. Raises `WorkItemNotFound`.
    """
    for row in database.rows(_FIND, _sought(item_id, user_id, now, reach), prepared=_PLANNED):
        return row
    raise WorkItemNotFound


_OF_READER = (
    select(WorkItem.id)
    .outerjoin(Membership, and_(Membership.site_id == WorkItem.site_id, Membership.user_id == _USER))
    .where(REACHED)
)
_VISIBLE = Statement(_OF_READER.where(WorkItem.id == bindparam("ids", type_=ARRAY(Uuid)).any_()))


def is_visible(item_id: Sql) -> Condition:
    """The condition that an item is there and seen by whom the parameters `user_id` and `reach` say."""
    return _OF_READER.where(WorkItem.id == item_id).correlate_except(WorkItem, Membership).exists()


def visible(database: Database, ids: Collection[UUID], user_id: UUID | None, *, reach: Reach) -> frozenset[UUID]:
    """Those of these items that somebody sees."""
    if not ids:
        return frozenset()
    values = {"ids": list(ids), "user_id": user_id, "reach": reach.owner}
    return frozenset(row.id for row in database.rows(_VISIBLE, values))


_ENDED = [_constant(state) for state in (WorkState.CLOSED, WorkState.VOID)]
_ASSIGNED_COLUMNS: list[Any] = [WorkItem.id]
_ASSIGNED = Statement(
    select(*_ASSIGNED_COLUMNS)
    .where(
        WorkItem.site_id == bindparam("site_id"),
        WorkItem.assignee_id == bindparam("user_id"),
        WorkItem.state.not_in(_ENDED),
    )
    .order_by(WorkItem.id)
)


def assigned(session: Session, site_id: UUID, user_id: UUID) -> list[UUID]:
    """The ids of the items of a site on which somebody is to work."""
    return [row.id for row in run(session, _ASSIGNED, {"site_id": site_id, "user_id": user_id})]


def find_beside(
    session: Session, item: Any, other_id: UUID, user_id: UUID | None, now: datetime, *, reach: Reach
) -> Any | None:
    """Another item of the site of a locked one, as `find` returns it, if it is there."""
    rows = run(session, _FIND, _sought(other_id, user_id, now, reach))
    return next((row for row in rows if row.site_id == item.site_id), None)


def lock(session: Session, item_id: UUID, user_id: UUID | None, now: datetime, *, reach: Reach) -> Any:
    """Return the same as `find` during a change to its site: nobody changes it until the transaction ends."""
    for row in run(session, _LOCK, _sought(item_id, user_id, now, reach)):
        return row
    raise WorkItemNotFound


_HISTORY = [column for column in History.__table__.columns if column.key != "seq"]


def _contractor_seconds() -> ColumnElement[float]:
    """Of the row of history that is being added, reckoned from the row of the version before."""
    is_theirs = and_(
        History.to_state.in_([_constant(state) for state in _WITH_CONTRACTOR]), History.organisation != _constant("")
    )
    since = func.date_part("epoch", bindparam("told_at", type_=History.at.type) - History.at)
    version = bindparam("told_version", type_=History.version.type)
    return (
        select(History.contractor_seconds + case((is_theirs, since), else_=literal_column("0")))
        .where(History.item_id == bindparam("told_item_id", type_=Uuid()), History.version == version - 1)
        .scalar_subquery()
    )


def _told(**given: ColumnElement[Any]) -> CTE:
    """Adds the row of history, with values that are given by other parts of the statement."""
    given = {"contractor_seconds": _contractor_seconds(), **given}
    values = [given.get(column.key, bindparam(f"told_{column.key}", type_=column.type)) for column in _HISTORY]
    return insert(History).from_select([column.key for column in _HISTORY], select(*values)).cte("told")


def _of_history(
    site_id: UUID,
    change_seq: int | None,
    item: Any,
    after: Mapping[str, Any],
    entry: Entry,
    changes: Mapping[str, Any],
    at: datetime,
) -> dict[str, Any]:
    """The parameters of `_told`. `item` is as it was before, if it was; `after` are all columns as they are."""
    values = {
        "site_id": site_id,
        "item_id": after["id"],
        "change_seq": change_seq,
        "version": after["version"],
        "step": entry.step,
        "from_state": None if item is None else item.state,
        "to_state": after["state"],
        "organisation": after["organisation"],
        "assignee_name": after["assignee_name"],
        "due_on": after["due_on"],
        "original_due_on": after["original_due_on"],
        "resolution": after["resolution"],
        "visible_to_customer": after["visible_to_customer"],
        "changes": dump(changes).decode("utf-8"),
        "reason": entry.reason,
        "note": entry.note,
        "actor_id": entry.actor.user_id,
        "actor_name": entry.actor.name,
        "actor_role": entry.actor.role or "",
        "actor_organisation": entry.actor.organisation,
        "actor_position": entry.actor.position,
        "override": entry.override,
        "at": at,
        "phone_at": entry.phone_at,
        "op_id": entry.op_id,
        "batch_id": entry.batch_id,
    }
    return {f"told_{name}": value for name, value in values.items()}


_INSERTED = [column for column in WorkItem.__table__.columns if column.computed is None]
#: What the site gives an item that is made.
_GIVEN = ("number", "change_seq", "title_key")


#: A statement before the one that adds, so that this sees who is on the site once nobody else changes it.
_HOLD = "SELECT FROM sites WHERE id = %(site_id)s FOR NO KEY UPDATE; "


@cache
def _add(keyed: bool) -> Statement:
    of_site = select(Membership.role).where(Membership.site_id == Site.id)
    still_a_member = of_site.where(Membership.user_id == _USER, Membership.role == bindparam("role")).exists()
    assignee = bindparam("assignee_id", type_=Uuid())
    can_work = (Membership.role.in_([_constant(role) for role in WORKERS]), ~Membership.disabled)
    still_works = of_site.where(Membership.user_id == assignee, *can_work).exists()
    site = (
        update(Site)
        .where(
            Site.id == bindparam("site_id"),
            or_(cast(bindparam("role"), Text).is_(None), still_a_member),
            or_(cast(assignee, Uuid()).is_(None), still_works),
            ~select(History.seq).where(History.item_id == bindparam("id")).exists(),
        )
        .values(change_seq=Site.change_seq + 1, next_number=Site.next_number + 1)
        .returning(Site.key.label("site_key"), (Site.next_number - 1).label("number"), Site.change_seq)
        .cte("site")
    )
    name = func.concat(func.lower(site.c.site_key), _constant("-"), site.c.number, literal_column("chr(10)"))
    given: dict[str, ColumnElement[Any]] = {"number": site.c.number, "change_seq": site.c.change_seq}
    given["title_key"] = func.concat(name, bindparam("title_part", type_=Text()))
    values = [given.get(column.key, bindparam(column.key, type_=column.type)) for column in _INSERTED]
    made = (
        insert(WorkItem)
        .from_select([column.key for column in _INSERTED], select(*values))
        .returning(WorkItem.id, *_OF_SITE)
        .cte("made")
    )
    more = [_told(change_seq=site.c.change_seq, contractor_seconds=literal_column("0"))]
    if keyed:
        keys = Base.metadata.tables["idempotency_keys"]
        remembered = select(bindparam("idempotency_key", type_=Text()), bindparam("fingerprint"), made.c.id)
        more.append(insert(keys).from_select(["key", "fingerprint", "made"], remembered).cte("remembered"))
    return Statement(select(*site.c, *made.c).select_from(site.join(made, true())).add_cte(*more))


def add(
    database: Database, site: Any, values: Mapping[str, Any], entry: Entry, now: datetime, key: RequestKey | None
) -> Any:
    """Insert an item with the next number of its site, its history and the key of its request, in one round trip.

    `values` are all of its columns that the site, which `reader` gave, does not give: it must be visible to whoever
    makes it. None, with nothing done, if there was an item with its id, deleted or not, if the same request is making
    one, if whoever makes it is no longer what they were on the site, or if its assignee no longer works there.
    """
    values = {**values, "site_id": site.id, "version": 1, "created_at": now, "updated_at": now}
    parameters = values | _of_history(site.id, None, None, values, entry, {}, now)
    parameters |= {"time_zone": site.time_zone, "today": site.today, "title_part": comparable(values["title"])}
    parameters |= {"user_id": entry.actor.user_id, "role": entry.actor.role}
    if key is not None:
        parameters |= {"idempotency_key": key.key, "fingerprint": key.fingerprint}
    try:
        statement = _add(key is not None)
        for made in statement.named(database.once(_HOLD + statement.text, statement.parameters(parameters))):
            return SimpleNamespace(**{**values, **made._asdict()})
    except IntegrityError as exc:
        if not (idempotency.is_taken(exc) or exc.diag.constraint_name == "pk_work_items"):
            raise
    return None


@cache
def _write(*names: str) -> Statement:
    changed = update(WorkItem).where(WorkItem.id == bindparam("item_id"))
    made = changed.values({name: bindparam(name) for name in names}).returning(*_OF_SITE).cte("made")
    return Statement(select(*made.c).add_cte(_told(), _gone()))


def _gone() -> CTE:
    """Adds a row of removals for each of the parameter `audiences`."""
    audiences = func.unnest(bindparam("audiences", type_=ARRAY(Text))).column_valued("audience")
    columns = ["site_id", "change_seq", "item_id", "audience"]
    names = ("told_site_id", "told_change_seq", "item_id")
    rows = select(
        *(bindparam(name, type_=Removal.__table__.c[name.removeprefix("told_")].type) for name in names), audiences
    )
    return insert(Removal).from_select(columns, rows).cte("gone")


def write(session: Session, site: SiteNow, item: Any, values: Mapping[str, Any], entry: Entry) -> Any:
    """Change a locked item: its columns, its version, its history, and who has lost sight of it. Returns it as it is.

    History's `changes` are those of `values` that differ.
    """
    at = max(site.now, item.updated_at)
    changes = {name: [before, value] for name, value in values.items() if (before := getattr(item, name)) != value}
    after = item._replace(**values, version=item.version + 1, change_seq=site.change_seq, updated_at=at)
    changed = {name: value for name, value in after._asdict().items() if name in values or name in _RAISED}
    if "title" in changes:
        changed["title_key"] = title_key(site.key, item.number, after.title)
    told = {name: pair for name, pair in changes.items() if name not in _NOT_TOLD}
    parameters = {
        **changed,
        **_of_history(site.id, site.change_seq, item, after._asdict(), entry, told, at),
        "time_zone": site.time_zone,
        "today": site.today,
        "location_id": after.location_id,
        "item_id": item.id,
        "audiences": list(dict.fromkeys(lost_sight(item, after))),
    }
    (made,) = run(session, _write(*changed), parameters)
    computed: dict[str, Any] = made._asdict()
    return after._replace(**computed)


_RAISED = frozenset({"version", "change_seq", "updated_at"})
_REMOVED = delete(WorkItem).where(WorkItem.id == bindparam("item_id")).returning(WorkItem.id).cte("made")
_REMOVE = Statement(select(_REMOVED.c.id).add_cte(_told(), _gone()))


def remove(session: Session, site: SiteNow, item: Any, entry: Entry) -> None:
    """Delete a locked draft, which nobody sees any longer; its history stays, its number and id are not given again."""
    after = {**item._asdict(), "version": item.version + 1, "state": None}
    told = _of_history(site.id, site.change_seq, item, after, entry, {}, max(site.now, item.updated_at))
    run(session, _REMOVE, {**told, "item_id": item.id, "audiences": [*knew_draft(item)]})


def title_key(site_key: str, number: int, title: str) -> str:
    """How an item is searched: its name, and on a line of its own its title."""
    return f"{site_key.lower()}-{number}\n{comparable(title)}"
