"""(pure) The steps of a work item: who may take which, from which state to which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from datetime import date
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from service_sites.domain.item import ItemKind, ItemState, Resolution, WorkState
from service_sites.domain.people import INSPECTORS, WORKERS, Actor, Member, SiteRole
from service_sites.domain.visibility import sees
from service_sites.errors import ReasonRequired, StepNotPossible, WorkItemNotFound
from servicekit.wire.errors import AppError, FieldError, Forbidden, Invalid


class Step(StrEnum):
    """What can be done with a work item besides changing its fields."""

    SUBMIT = "submit"
    ADMIT = "admit"
    ASSIGN = "assign"
    MOVE_DEADLINE = "move_deadline"
    START = "start"
    REPORT_DONE = "report_done"
    DISPUTE = "dispute"
    SETTLE = "settle"
    ACCEPT = "accept"
    RETURN = "return"
    ACCEPT_AS_IS = "accept_as_is"
    REOPEN = "reopen"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class StepRequest:
    """A step that somebody wants to take; None: not named."""

    step: Step
    reason: str | None = None
    #: What was done, in place of a photo of it.
    note: str | None = None
    assignee_id: UUID | None = None
    organisation: str | None = None
    due_on: date | None = None
    #: Of a dispute that is settled.
    outcome: WorkState | None = None
    resolution: Resolution | None = None
    #: Another item of the site.
    duplicate_of: UUID | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What a step does to an item."""

    #: Columns and their new values.
    values: Mapping[str, Any]
    #: Columns that take the time of the change.
    stamped: tuple[str, ...] = ()
    #: Whether an administrator did what their role on the site does not allow.
    override: bool = False


#: Why a step is not taken, to be raised.
Refusal = AppError


class Who(NamedTuple):
    """Who may take a step."""

    words: str
    includes: Callable[[ItemState, Actor], bool]


class Rule(NamedTuple):
    """One row of the table."""

    step: Step
    before: Set[WorkState]
    #: Empty: as it was. Of several, the request names one.
    after: tuple[WorkState, ...]
    who: Who
    kinds: Set[ItemKind] = frozenset(ItemKind)


class Fields(NamedTuple):
    """The fields of a request for a step. Each takes a reason, and an administrator's override needs one."""

    needs: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()


def _did_report(item: ItemState, actor: Actor) -> bool:
    return actor.is_person(item.done_by_id) or actor.works_for(item.done_by_organisation)


def _is_responsible(item: ItemState, actor: Actor) -> bool:
    return actor.role in WORKERS and (actor.is_person(item.assignee_id) or actor.works_for(item.organisation))


MANAGER = Who("a manager of the site", lambda _, actor: actor.role is SiteRole.MANAGER)
INSPECTOR = Who("an engineer or manager of the site", lambda _, actor: actor.role in INSPECTORS)
AUTHOR = Who(
    "its author, an engineer or manager of the site",
    lambda item, actor: actor.role in INSPECTORS and actor.is_person(item.author_id),
)
RESPONSIBLE = Who("its assignee or their organisation", _is_responsible)
EXAMINER = Who(
    "an engineer or manager of the site who neither reported it done nor works for whoever did",
    lambda item, actor: actor.role in INSPECTORS and not _did_report(item, actor),
)

DRAFT, OPEN, IN_PROGRESS, READY, RETURNED, DISPUTED, CLOSED, VOID = WorkState
_UNDER_WAY = frozenset({OPEN, IN_PROGRESS, READY, RETURNED, DISPUTED})
_UNCHANGED = ()
_REMARK = frozenset({ItemKind.CUSTOMER_REMARK})
_INNER = frozenset(ItemKind) - _REMARK

#: A step of several rows has the widest of those who may take it last.
TABLE = (
    Rule(Step.SUBMIT, {DRAFT}, (OPEN,), AUTHOR, _INNER),
    Rule(Step.ADMIT, {DRAFT}, (OPEN,), MANAGER, _REMARK),
    Rule(Step.ASSIGN, _UNDER_WAY, _UNCHANGED, MANAGER),
    Rule(Step.MOVE_DEADLINE, _UNDER_WAY, _UNCHANGED, MANAGER),
    Rule(Step.START, {OPEN, RETURNED}, (IN_PROGRESS,), RESPONSIBLE),
    Rule(Step.REPORT_DONE, {OPEN, IN_PROGRESS, RETURNED}, (READY,), RESPONSIBLE),
    Rule(Step.DISPUTE, {OPEN, IN_PROGRESS}, (DISPUTED,), RESPONSIBLE),
    Rule(Step.SETTLE, {DISPUTED}, (OPEN, VOID), MANAGER),
    Rule(Step.ACCEPT, {READY}, (CLOSED,), EXAMINER),
    Rule(Step.RETURN, {READY}, (RETURNED,), EXAMINER),
    Rule(Step.ACCEPT_AS_IS, {OPEN, DISPUTED}, (CLOSED,), MANAGER),
    Rule(Step.REOPEN, {CLOSED}, (OPEN,), INSPECTOR),
    Rule(Step.VOID, {DRAFT}, (VOID,), AUTHOR),
    Rule(Step.VOID, {DRAFT, *_UNDER_WAY}, (VOID,), MANAGER),
)
_FITTING: Mapping[tuple[str, str], tuple[Rule, ...]] = {
    (kind, state): tuple(rule for rule in TABLE if kind in rule.kinds and state in rule.before)
    for kind in ItemKind
    for state in WorkState
}

_REASON = frozenset({"reason"})
_ENDING = frozenset({"resolution", "duplicate_of"})
FIELDS: Mapping[Step, Fields] = {
    Step.SUBMIT: Fields(takes=frozenset({"due_on"})),
    Step.ADMIT: Fields(takes=frozenset({"due_on"})),
    Step.ASSIGN: Fields(takes=frozenset({"assignee_id", "organisation", "due_on"})),
    Step.MOVE_DEADLINE: Fields(needs=_REASON | {"due_on"}),
    Step.START: Fields(),
    Step.REPORT_DONE: Fields(needs=frozenset({"note"})),
    Step.DISPUTE: Fields(needs=_REASON),
    Step.SETTLE: Fields(needs=frozenset({"outcome"}), takes=_ENDING),
    Step.ACCEPT: Fields(),
    Step.RETURN: Fields(needs=_REASON),
    Step.ACCEPT_AS_IS: Fields(),
    Step.REOPEN: Fields(needs=_REASON | {"due_on"}),
    Step.VOID: Fields(needs=frozenset({"resolution"}), takes=_ENDING),
}
#: The work is to be done again, perhaps by another organisation, which is not told whose it was.
_UNDONE: Mapping[str, Any] = {"done_by_id": None, "done_by_organisation": ""}
#: What makes an item of a draft.
SUBMITTING = (Step.SUBMIT, Step.ADMIT)


def permitted_steps(item: ItemState, actor: Actor) -> tuple[Step, ...]:
    """The steps that somebody may take now, in the table's order: those that `decide` accepts with the right fields,
    and of an administrator with a reason."""
    if not sees(item, actor):
        return ()
    fitting = _FITTING[item.kind, item.state]
    return tuple(dict.fromkeys(rule.step for rule in fitting if actor.override or rule.who.includes(item, actor)))


def misfit(request: StepRequest) -> Invalid | None:
    """What is wrong with a request whatever the item is."""
    needs, takes = FIELDS[request.step]
    named = {one.name for one in fields(request) if getattr(request, one.name) is not None} - {"step"}
    unfit = named - needs - takes - _REASON
    wrong = [FieldError(name, "is required for this step") for name in sorted(needs - named)]
    if request.step is Step.ASSIGN and named.isdisjoint({"assignee_id", "organisation"}):
        wrong.append(FieldError("assignee_id", "is required, or organisation"))
    if request.step is Step.SETTLE and request.outcome is OPEN:
        unfit |= named & _ENDING
    elif request.step is Step.SETTLE and request.outcome is VOID and request.resolution is None:
        wrong.append(FieldError("resolution", "is required for what becomes void"))
    if not unfit and (request.resolution is Resolution.DUPLICATE) != (request.duplicate_of is not None):
        wrong.append(FieldError("duplicate_of", "goes with the resolution duplicate, and with no other"))
    return _invalid(wrong + [FieldError(name, "is not for this step") for name in sorted(unfit)])


def decide(
    item: ItemState,
    request: StepRequest,
    actor: Actor,
    today: date,
    *,
    assignee: Member | None = None,
    original: ItemState | None = None,
    default_due_on: date | None = None,
) -> Change | Refusal:
    """Judge a step by somebody on an item of their site.

    `today` is the date at the site. `assignee` and `original` are what `assignee_id` and `duplicate_of` refer to, None
    if the site has no such; `default_due_on` is when an item is due that is submitted today, by the site's rules.
    """
    if not sees(item, actor):
        return WorkItemNotFound()
    rules = [rule for rule in TABLE if rule.step is request.step]
    fitting = [rule for rule in rules if rule in _FITTING[item.kind, item.state]]
    override = not any(rule.who.includes(item, actor) for rule in fitting)
    if override and not actor.override and (fitting or not any(rule.who.includes(item, actor) for rule in rules)):
        return Forbidden(f"Only {rules[-1].who.words} may take the step {request.step}.")
    if not fitting:
        return StepNotPossible(f"A {item.kind} in the state {item.state} does not allow the step {request.step}.")
    wrong = misfit(request) or _invalid(
        _wrong_references(item, request, actor, assignee, original) + _wrong_dates(item, request, today)
    )
    if wrong is not None:
        return wrong
    if override and request.reason is None:
        return ReasonRequired()
    values = _values(item, request, actor, assignee, default_due_on)
    if after := fitting[0].after:
        values["state"] = request.outcome or after[0]
    stamped: tuple[str, ...] = ()
    if request.step in SUBMITTING:
        stamped = ("submitted_at",)
    elif values.get("state") is CLOSED:
        stamped = ("closed_at",) if item.first_closed_at else ("first_closed_at", "closed_at")
    changed = {name: value for name, value in values.items() if value != getattr(item, name)}
    return Change(changed, stamped, override)


def _invalid(wrong: Sequence[FieldError]) -> Invalid | None:
    return Invalid("; ".join(f"{one.field}: {one.message}" for one in wrong), details=wrong) if wrong else None


def _wrong_references(
    item: ItemState, request: StepRequest, actor: Actor, assignee: Member | None, original: ItemState | None
) -> list[FieldError]:
    if request.assignee_id is not None and (assignee is None or assignee.role not in WORKERS):
        return [FieldError("assignee_id", "must be an engineer, a manager or a contractor of this site")]
    if request.duplicate_of is not None:
        if original is None or original.id == item.id or not sees(original, actor):
            return [FieldError("duplicate_of", "must be another work item of this site")]
        if original.state == VOID:
            return [FieldError("duplicate_of", "must not be void itself")]
    return []


def _wrong_dates(item: ItemState, request: StepRequest, today: date) -> list[FieldError]:
    due_on = request.due_on
    if request.step in SUBMITTING:
        # A draft's own may have passed since it was written.
        due_on = due_on or item.due_on
    elif request.step is Step.MOVE_DEADLINE and due_on == item.due_on:
        return [FieldError("due_on", "is the deadline already")]
    elif request.step is Step.ASSIGN and due_on == item.due_on:
        return []
    if due_on is not None and due_on < today:
        return [FieldError("due_on", f"must not be before {today}, today at the site")]
    if request.step is Step.ASSIGN and due_on and item.due_on and request.reason is None:
        return [FieldError("reason", "is required to move the deadline")]
    return []


def _values(
    item: ItemState, request: StepRequest, actor: Actor, assignee: Member | None, default_due_on: date | None
) -> dict[str, Any]:
    """The columns that a step sets besides the state."""
    due_on = request.due_on or item.due_on
    due = {"due_on": due_on, "original_due_on": item.original_due_on or due_on}
    match request.step:
        case Step.SUBMIT | Step.ADMIT:
            # Whatever a draft said was a proposal.
            return dict.fromkeys(due, due_on or default_due_on)
        case Step.ASSIGN:
            person = (None, "") if assignee is None else (assignee.user_id, assignee.name)
            firm = request.organisation if assignee is None else request.organisation or assignee.organisation
            return {"assignee_id": person[0], "assignee_name": person[1], "organisation": firm, **due}
        case Step.MOVE_DEADLINE:
            return due
        case Step.REPORT_DONE:
            return {"done_by_id": actor.user_id, "done_by_organisation": actor.organisation}
        case Step.RETURN:
            return {**_UNDONE}
        case Step.SETTLE | Step.VOID:
            return {"resolution": request.resolution, "duplicate_of": request.duplicate_of}
        case Step.ACCEPT:
            return {"resolution": Resolution.FIXED}
        case Step.ACCEPT_AS_IS:
            return {"resolution": Resolution.ACCEPTED_AS_IS}
        case Step.REOPEN:
            return {"resolution": None, "closed_at": None, "reopen_count": item.reopen_count + 1, **_UNDONE, **due}
    return {}
