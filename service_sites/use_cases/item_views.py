"""How work items and what happened to them are shown to somebody, by what they are on the site."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from sqlalchemy.orm import Session

from service_sites.domain.item import ItemState, WorkState
from service_sites.domain.people import Actor, SiteRole
from service_sites.domain.steps import permitted_steps
from service_sites.domain.visibility import is_own_remark
from service_sites.persistence import history
from service_sites.persistence.item_rows import Facts
from service_sites.schemas.history import ActorView, HistoryEntry
from service_sites.schemas.items import (
    CUSTOMER_STATES,
    CustomerStateWord,
    CustomerWorkItemView,
    PersonView,
    WorkItemView,
)
from service_sites.use_cases.members import knows_employer
from servicekit.database.engine import Database
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action, Role
from servicekit.process.clock import rfc3339
from servicekit.web.encoders import encoder_of
from servicekit.web.preconditions import ETAG, IfMatch
from servicekit.wire.envelope import Written, dump
from servicekit.wire.errors import FieldError, Forbidden, PreconditionFailed, PreconditionRequired

AnyItemView = WorkItemView | CustomerWorkItemView

#: How many changes the answer to a stale one names.
_MOST_CHANGES = 20
_WORDS: Mapping[str, CustomerStateWord] = {state: word for word, states in CUSTOMER_STATES.items() for state in states}
#: Fields of the view that a row has too.
_PLAIN = [name for name in WorkItemView.model_fields if name not in ("key", "assignee", "author", "permitted_steps")]
#: Whose an item is.
_WHOSE = frozenset({"organisation", "assignee_id", "assignee_name"})
_ALL = 1_000_000
_READER = UUID(int=1)
_ANOTHER = UUID(int=2)


def shown(row: Any, who: Actor, caller: Principal) -> AnyItemView:
    """An item as the caller, who sees it, is shown it."""
    if who.role is SiteRole.CUSTOMER and caller.reach(Action.READ_SITES).owner is not None:
        is_own = is_own_remark(row, who)
        return CustomerWorkItemView.unchecked(
            id=row.id,
            site_id=row.site_id,
            kind=row.kind,
            title=row.title,
            description=row.description if is_own else None,
            place=row.place if is_own else None,
            location_id=row.location_id,
            location=row.location,
            state=_WORDS[row.state],
            created_at=row.created_at,
            due_on=row.due_on,
            done_on=row.closed_on if row.state == WorkState.CLOSED else None,
            editable=is_own and row.state == WorkState.DRAFT and may_change(caller),
        )
    values = {name: getattr(row, name) for name in _PLAIN}
    if _is_outside(who, caller):
        values["duplicate_of"] = None
        if not (who.is_person(row.done_by_id) or who.works_for(row.done_by_organisation)):
            values |= {"done_by_id": None, "done_by_organisation": ""}
    nobody = row.assignee_id is None and not row.assignee_name
    return WorkItemView.unchecked(
        **values,
        key=f"{row.site_key}-{row.number}",
        assignee=None if nobody else PersonView.unchecked(id=row.assignee_id, name=row.assignee_name),
        author=PersonView.unchecked(id=row.author_id, name=row.author_name),
        permitted_steps=list(permitted_steps(row, who)) if may_change(caller) else [],
    )


def _is_outside(who: Actor, caller: Principal) -> bool:
    """Whether other items of the site may be hidden from somebody who sees this one and is no customer."""
    return who.role is SiteRole.CONTRACTOR and caller.reach(Action.READ_SITES).owner is not None


def require_seen(session: Session, item: Any, who: Actor, caller: Principal, if_match: IfMatch) -> None:
    """Raise `PreconditionRequired` unless the caller says which state of a locked item they have seen, and
    `PreconditionFailed` unless it is the present one: with the item as it is, and who has changed which field since."""
    if not if_match.is_given:
        raise PreconditionRequired
    view = shown(item, who, caller)
    if if_match.admits(view.etag):
        return
    seen = max((int(tag[1:-1]) for tag in if_match.tags if tag[1:-1].isdecimal() and len(tag) < 12), default=None)
    told: list[FieldError] = []
    if seen is not None and isinstance(view, WorkItemView):
        for row in history_told(session, item, who, caller, 0, _ALL):
            if row.version > seen:
                told += _changes_of(row)
    raise PreconditionFailed(
        details=told[-_MOST_CHANGES:],
        headers={ETAG: view.etag},
        present=Written(encoder_of(type(view))(view)),
    )


def may_change(caller: Principal) -> bool:
    """Whether they may change anything at all, so that it depends on the item which steps they may take."""
    try:
        caller.reach(Action.CHANGE_SITES)
    except Forbidden:
        return False
    return True


def steps_for(caller: Principal) -> Callable[[Facts], str]:
    """Return a function that gives the JSON of the steps that the caller may take on an item that they see."""
    override = caller.role is Role.ADMIN
    return (lambda facts: _permitted(facts, override)) if may_change(caller) else lambda _: "[]"


@cache
def _permitted(facts: Facts, override: bool) -> str:
    role = SiteRole(facts.role) if facts.role else None
    who = Actor(_READER, "", role, "theirs", override=override)
    item = SimpleNamespace(
        state=facts.state,
        kind=facts.kind,
        author_id=_READER if facts.is_author else _ANOTHER,
        assignee_id=_READER if facts.is_assignee else _ANOTHER,
        organisation="theirs" if facts.is_responsible_organisation else "",
        done_by_id=_READER if facts.did_report else _ANOTHER,
        done_by_organisation="theirs" if facts.organisation_did_report else "",
        visible_to_customer=True,
    )
    return dump(list(permitted_steps(cast(ItemState, item), who))).decode("utf-8")


def history_told(source: Database | Session, item: Any, who: Actor, caller: Principal, after: int, limit: int) -> Any:
    """The history of an item, as far as somebody who is no customer may know it."""
    if _is_outside(who, caller):
        return history.page_for_contractor(source, item, after, limit, who.user_id, who.organisation)
    return history.page(source, item, after, limit)


def _changes_of(row: Any) -> list[FieldError]:
    """Which fields a row of history changed, and who did that."""
    by = f"by {row.actor_name} ({row.actor_role or 'administrator'}) at {rfc3339(row.at)}"
    moved = row.from_state not in (None, row.to_state)
    said = (
        [FieldError("state", f"went from {in_words(row.from_state)} to {in_words(row.to_state)} {by}")] if moved else []
    )
    return said + [FieldError(name, f"changed {by}") for name in row.changes]


def entry_view(row: Any, who: Actor, caller: Principal) -> HistoryEntry:
    """A row of history as somebody who may read it is shown it."""
    told = knows_employer(who, row.actor_id)
    actor = ActorView.unchecked(
        id=row.actor_id,
        name=row.actor_name,
        role=row.actor_role,
        organisation=row.actor_organisation if told else None,
        position=row.actor_position if told else None,
    )
    values = {name: getattr(row, name) for name in HistoryEntry.model_fields if name != "actor"}
    if _is_outside(who, caller):
        values["changes"] = _changes_outside(row, who)
    return HistoryEntry.unchecked(actor=actor, **values)


def _changes_outside(row: Any, who: Actor) -> dict[str, Any]:
    """What a row of history changed, but not of which other item this is a duplicate, nor who had it before them."""
    told = {name: pair for name, pair in row.changes.items() if name != "duplicate_of"}
    organisation, _ = told.get("organisation", (row.organisation, None))
    assignee_id, _ = told.get("assignee_id", (None, None))
    if not who.works_for(organisation) and assignee_id != str(who.user_id):
        told |= {name: [None, told[name][1]] for name in _WHOSE & told.keys()}
    return told


def in_words(state: str) -> str:
    """A state as it is said in a sentence."""
    return state.replace("_", " ")
