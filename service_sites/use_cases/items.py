"""The use cases of work items, but for their steps: one method, one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.orm import Session

from service_sites.domain.item import ItemKind, WorkState
from service_sites.domain.people import INSPECTORS, WORKERS, Actor, SiteRole
from service_sites.domain.visibility import is_own_remark
from service_sites.errors import ReasonRequired, StepNotPossible, WorkItemNotFound
from service_sites.persistence import item_lists, items, members, sites
from service_sites.persistence.items import Entry
from service_sites.schemas.history import HistoryPage, HistoryQuery
from service_sites.schemas.items import (
    CustomerWorkItemView,
    WorkItemCreate,
    WorkItemPage,
    WorkItemPut,
    WorkItemQuery,
)
from service_sites.use_cases.item_views import (
    AnyItemView,
    entry_view,
    history_told,
    may_change,
    require_seen,
    shown,
    steps_for,
)
from service_sites.use_cases.members import actor_of, name_of
from service_sites.use_cases.places import due_by_rules
from service_sites.use_cases.reports import Reports, counted_in
from service_sites.users_client import Names
from servicekit.database.engine import Database
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.process.clock import Clock, utc_now
from servicekit.process.ids import new_id
from servicekit.web import idempotency
from servicekit.web.idempotency import Made, RequestKey
from servicekit.web.preconditions import IfMatch
from servicekit.web.schemas import invalid_from
from servicekit.wire import memory
from servicekit.wire.errors import FieldError, Forbidden, Invalid, PreconditionRequired

#: What a customer may say in a remark.
_OF_REMARKS = frozenset(
    {"title", "description", "location_id", "place", "axes", "plan_version_id", "pin_x", "pin_y", "latitude"}
    | {"longitude", "occurred_at"}
)
#: What only managers change of an item that is no draft of their own.
_OF_MANAGERS = frozenset({"priority", "visible_to_customer"})
#: What is a proposal while the item is a draft, and then changes by these steps.
_BY_STEPS = {"organisation": "assign", "assignee_id": "assign", "due_on": "move_deadline"}
#: What never changes.
_FIXED = ("site_id", "kind", "occurred_at")
#: What may change of an item that has come to its end.
_AFTER_THE_END = frozenset({"visible_to_customer", "tags"})
#: Columns that a new item has from its body.
_OF_BODY = [name for name in WorkItemCreate.model_fields if name not in ("draft", "reason")]
_HIDDEN = object()
#: Fields that are both given or neither.
_PAIRS = (("pin_x", "pin_y"), ("latitude", "longitude"))
_OF_NEW_ITEMS = {
    "resolution": None,
    "done_by_id": None,
    "done_by_organisation": "",
    "first_closed_at": None,
    "closed_at": None,
    "reopen_count": 0,
    "duplicate_of": None,
}


class WorkItems:
    """The use cases; thread-safe."""

    def __init__(
        self,
        database: Database,
        names: Names | None = None,
        reports: Reports | None = None,
        *,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._names = names
        self._reports = reports or Reports(database, clock=clock)
        self._clock = clock

    def get(self, item_id: UUID, caller: Principal) -> AnyItemView:
        """Return one item. Raises `WorkItemNotFound`."""
        row = self._find(item_id, caller)
        return shown(row, actor_of(row, caller), caller)

    def search(self, query: WorkItemQuery, caller: Principal) -> WorkItemPage:
        """Return one page of the items that the caller sees.

        Raises `Invalid` for an `after` that was not the `next` of a page, an `offset` that goes too far, or an order
        by number without a site, and `Overloaded` while other requests hold too much memory or make reports.
        """
        if query.sort.removeprefix("-") == "number" and query.site_id is None:
            raise Invalid.field("sort", "by number takes a site_id")
        reach = caller.reach(Action.READ_SITES)
        now = self._clock()
        counted = None if query.counted_in is None else counted_in(query.counted_in, now, reach=reach)
        # To find what a report counted takes as long as the report.
        with nullcontext() if counted is None else self._reports.place():
            found = item_lists.search(
                self._database,
                query,
                caller.user_id,
                now,
                steps_for(caller),
                may_change(caller),
                counted,
                reach=reach,
            )
        if found is None:
            return WorkItemPage.unchecked(
                total=0 if query.total else None,
                total_is_exact=query.total,
                limit=query.limit,
                offset=query.offset,
                next=None,
                work_items=[],
            )
        memory.take_written(found.rows.encoded_json)
        return WorkItemPage.unchecked(
            total=found.total,
            total_is_exact=found.total_is_exact,
            limit=min(query.limit, found.shown) if found.next else query.limit,
            offset=query.offset,
            next=found.next,
            work_items=found.rows,
        )

    def history(self, item_id: UUID, query: HistoryQuery, caller: Principal) -> HistoryPage:
        """Return what happened to an item, the oldest first. Raises `WorkItemNotFound`; customers get `Forbidden`."""
        row = self._find(item_id, caller)
        who = actor_of(row, caller)
        if isinstance(shown(row, who, caller), CustomerWorkItemView):
            raise Forbidden("Customers are not told what happened to a work item.")
        rows = history_told(self._database, row, who, caller, query.after, query.limit + 1)
        more = len(rows) > query.limit
        return HistoryPage.unchecked(
            history=[entry_view(one, who, caller) for one in rows[: query.limit]],
            next=rows[query.limit - 1].version if more else None,
        )

    def create(
        self, site_id: UUID, wanted: WorkItemCreate, caller: Principal, key: RequestKey | None = None
    ) -> Made[AnyItemView]:
        """Make an item on a site, or return the one that the same request made before.

        Raises `SiteNotFound`, `Forbidden`, `ReasonRequired`, `Invalid`, `UnknownLocation`, `IdempotencyKeyReused`, and
        `WorkItemNotFound` if that item was deleted.
        """
        if key is not None:
            key = key.within(caller.reach(Action.CHANGE_SITES))
            # The same body for another site is another request.
            key = replace(key, fingerprint=hashlib.sha256(site_id.bytes + key.fingerprint).digest())
        while True:
            if key is not None and (earlier := idempotency.find_made(self._database, key)) is not None:
                return Made(self.get(earlier, caller), replayed=True)
            made = self._create(new_id(), site_id, wanted, idempotency.fingerprint(wanted), caller, key)
            if made is not None:
                return Made(made)

    def put(
        self, item_id: UUID, body: WorkItemPut, if_match: IfMatch, caller: Principal
    ) -> tuple[Made[AnyItemView], bool]:
        """Make an item with this id, return the one that the same request made before, or change one that was seen; and
        whether it was made now.

        Raises as `create` and `update` do, and `PreconditionRequired` for another request for an item that exists.
        """
        while True:
            try:
                row = self._find(item_id, caller)
            except WorkItemNotFound:
                if if_match.is_given or "site_id" not in body.model_fields_set:
                    raise
            else:
                if if_match.is_given:
                    return Made(self._update(row, body, if_match, caller)), False
                same = bytes(row.created_digest) == idempotency.fingerprint(body) and row.author_id == caller.user_id
                if not same:
                    raise PreconditionRequired
                return Made(shown(row, actor_of(row, caller), caller), replayed=True), False
            digest = idempotency.fingerprint(body)
            made = self._create(item_id, body.site_id, _new(item_id, body), digest, caller, None)
            if made is not None:
                return Made(made), True
            # Made meanwhile by somebody; or it is gone, or hidden.
            self._find(item_id, caller)

    def delete(self, item_id: UUID, reason: str | None, if_match: IfMatch, caller: Principal) -> AnyItemView:
        """Remove and return a draft.

        Raises `WorkItemNotFound`, `PreconditionRequired`, `PreconditionFailed`, `Forbidden`, `ReasonRequired`, and
        `StepNotPossible` for an item that is no draft.
        """
        reach = caller.reach(Action.CHANGE_SITES)
        now = self._clock()
        site_id = self._find(item_id, caller).site_id
        name = name_of(caller, self._names)
        with self._database.transaction() as session:
            site = sites.begin(session, site_id, now)
            row = items.lock(session, item_id, caller.user_id, now, reach=reach)
            who = actor_of(row, caller, name)
            require_seen(session, row, who, caller, if_match)
            if row.state != WorkState.DRAFT:
                # Not what it is instead: customers are told less.
                raise StepNotPossible("Only a draft can be deleted.")
            override = not who.is_person(row.author_id)
            _require_right(override, who, reason, "Only its author may delete a draft.")
            items.remove(session, site, row, Entry("deleted", who, reason=reason or "", override=override))
        return shown(row, who, caller)

    def _find(self, item_id: UUID, caller: Principal) -> Any:
        reach = caller.reach(Action.READ_SITES)
        return items.find(self._database, item_id, caller.user_id, self._clock(), reach=reach)

    def _create(
        self,
        item_id: UUID,
        site_id: UUID,
        wanted: WorkItemCreate,
        digest: bytes,
        caller: Principal,
        key: RequestKey | None,
    ) -> AnyItemView | None:
        """Make an item; None if one with its id, or made by the same request, is in the way."""
        reach = caller.reach(Action.CHANGE_SITES)
        now = self._clock()
        site = sites.reader(self._database, site_id, caller.user_id, now, reach=reach)
        who = actor_of(site, caller, name_of(caller, self._names))
        override = _judge_new(wanted, who)
        is_draft = wanted.draft or (who.role is SiteRole.CUSTOMER)
        values: dict[str, Any] = {name: getattr(wanted, name) for name in _OF_BODY}
        if not is_draft and wanted.due_on is not None and wanted.due_on < site.today:
            raise Invalid.field("due_on", f"must not be before {site.today}, today at the site")
        has_rule = wanted.due_on is None and site.deadline_rules.get(wanted.severity) is not None
        values["assignee_name"] = ""
        if wanted.assignee_id is not None or (has_rule and not is_draft):
            with self._database.transaction() as session:
                _set_assignee(session, site_id, values)
                if not is_draft:
                    values["due_on"] = wanted.due_on or due_by_rules(session, site, wanted.severity)
        values |= {
            **_OF_NEW_ITEMS,
            "id": item_id,
            "state": (WorkState.DRAFT if is_draft else WorkState.OPEN).value,
            "author_id": who.user_id,
            "author_name": who.name,
            "original_due_on": None if is_draft else values["due_on"],
            "submitted_at": None if is_draft else now,
            "created_digest": digest,
        }
        entry = Entry("created", who, reason=wanted.reason or "", override=override)
        row = items.add(self._database, site, values, entry, now, key)
        if row is not None:
            return shown(row, who, caller)
        with self._database.transaction() as session:
            # The assignee may be gone.
            _set_assignee(session, site_id, values)
        return None

    def _update(self, row: Any, body: WorkItemPut, if_match: IfMatch, caller: Principal) -> AnyItemView:
        """Change the fields that are named."""
        reach = caller.reach(Action.CHANGE_SITES)
        now = self._clock()
        name = name_of(caller, self._names)
        with self._database.transaction() as session:
            site = sites.begin(session, row.site_id, now)
            row = items.lock(session, row.id, caller.user_id, now, reach=reach)
            who = actor_of(row, caller, name)
            require_seen(session, row, who, caller, if_match)
            view = shown(row, who, caller)
            body.require_unchanged(view)
            named = body.named()
            reason = named.pop("reason", None)
            named.pop("draft", None)
            _require_fixed(row, named)
            # Of what a customer is not shown every value is a change, or the answer would tell which it has.
            known = view if isinstance(view, CustomerWorkItemView) else row
            wanted = {name: value for name, value in named.items() if value != getattr(known, name, _HIDDEN)}
            override = bool(wanted) and _judge_change(row, wanted, who, reason)
            changed = {name: value for name, value in wanted.items() if value != getattr(row, name)}
            if not changed:
                # The change that was begun is none.
                session.rollback()
                return view
            _require_pairs(SimpleNamespace(**{**row._asdict(), **changed}))
            _set_assignee(session, site.id, changed)
            entry = Entry("changed", who, reason=reason or "", override=override)
            row = items.write(session, site, row, changed, entry)
        return shown(row, who, caller)


def _new(item_id: UUID, body: WorkItemPut) -> WorkItemCreate:
    """What a PUT says of an item that is not there yet."""
    if body.sent_back("id") not in (None, str(item_id)):
        raise Invalid.field("id", "must be that of the path")
    named = body.named()
    del named["site_id"]
    try:
        return WorkItemCreate.model_validate(named)
    except ValidationError as exc:
        raise invalid_from(exc) from exc


def _judge_new(wanted: WorkItemCreate, who: Actor) -> bool:
    """Whether it takes an administrator to make such an item; raises for others."""
    _require_pairs(wanted)
    by_customer = ItemKind(wanted.kind) is ItemKind.CUSTOMER_REMARK
    allowed = who.role is SiteRole.CUSTOMER if by_customer else who.role in INSPECTORS
    words = "a customer's remark" if by_customer else "this"
    whose = "customers" if by_customer else "engineers and managers"
    _require_right(not allowed, who, wanted.reason, f"Only {whose} of the site may make {words}.", "kind")
    if allowed and by_customer:
        _require_of_remarks(wanted.model_fields_set - {"kind", "draft", "reason"}, who)
    return not allowed


def _require_of_remarks(names: frozenset[str] | set[str], who: Actor) -> None:
    others = sorted(names - _OF_REMARKS)
    if others and not who.override:
        details = [FieldError(name, "is not for customers to set") for name in others]
        raise Forbidden("; ".join(f"{one.field}: {one.message}" for one in details), details=details)


def _judge_change(row: Any, changed: Mapping[str, Any], who: Actor, reason: str | None) -> bool:
    """Whether it takes an administrator to change these fields; raises for others."""
    is_draft = row.state == WorkState.DRAFT
    is_own_draft = is_draft and who.is_person(row.author_id)
    if not is_draft and (by_step := next((name for name in _BY_STEPS if name in changed), None)):
        raise Invalid.field(by_step, f"changes by the step {_BY_STEPS[by_step]}")
    if row.state in (WorkState.CLOSED, WorkState.VOID) and not changed.keys() <= _AFTER_THE_END:
        raise StepNotPossible(f"A work item that is {row.state} changes only by a step.")
    if is_own_draft and who.role in INSPECTORS:
        return False
    if who.role is SiteRole.CUSTOMER and is_own_remark(row, who):
        _require_of_remarks({*changed}, who)
        if is_draft and changed.keys() <= _OF_REMARKS:
            return False
        if not who.override:
            raise StepNotPossible("A manager has admitted this remark, so it changes no more. Comment on it instead.")
    refused = sorted(changed)
    if who.role is SiteRole.MANAGER:
        refused = [name for name in refused if name in _BY_STEPS]
    elif who.role is SiteRole.ENGINEER:
        refused = [name for name in refused if name in _BY_STEPS or name in _OF_MANAGERS]
    if refused:
        _require_right(True, who, reason, "Your role on this site does not allow this change.", *refused)
    return bool(refused)


def _require_right(lacks: bool, who: Actor, reason: str | None, refusal: str, *fields: str) -> None:
    """Raise unless somebody may do something, or is an administrator who says why."""
    if lacks and not who.override:
        raise Forbidden(refusal, details=[FieldError(name, "is not for you to set") for name in fields])
    if lacks and reason is None:
        raise ReasonRequired


def _require_fixed(row: Any, named: dict[str, Any]) -> None:
    for name in _FIXED:
        if name in named and named.pop(name) != getattr(row, name):
            raise Invalid.field(name, "cannot be changed")


def _require_pairs(item: Any) -> None:
    for one, other in _PAIRS:
        if (getattr(item, one) is None) != (getattr(item, other) is None):
            missing = one if getattr(item, one) is None else other
            raise Invalid.field(missing, f"belongs to {other if missing == one else one}")


def _set_assignee(session: Session, site_id: UUID, values: dict[str, Any]) -> None:
    """Give an item the name, and unless another is named the organisation, of its new assignee."""
    if "assignee_id" not in values:
        return
    values["assignee_name"] = ""
    if values["assignee_id"] is None:
        return
    member = members.enabled(session, site_id, values["assignee_id"])
    if member is None or member.role not in WORKERS:
        raise Invalid.field("assignee_id", "must be an engineer, a manager or a contractor of this site")
    values["assignee_name"] = member.name
    values["organisation"] = values.get("organisation") or member.organisation
