"""Steps of work items: each is one transaction."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from service_sites.domain.people import WORKERS, Actor, SiteRole
from service_sites.domain.steps import SUBMITTING, Change, Step, decide, misfit
from service_sites.persistence import items, members, operations, sites
from service_sites.persistence.items import Entry
from service_sites.persistence.operations import Asked
from service_sites.schemas.items import WorkItemView
from service_sites.schemas.steps import (
    BulkStepBody,
    ItemSeen,
    RefusedField,
    StepBody,
    StepError,
    StepFields,
    StepOutcome,
    StepOutcomes,
)
from service_sites.use_cases.item_views import require_seen, shown
from service_sites.use_cases.members import actor_of, name_of
from service_sites.use_cases.places import due_by_rules
from service_sites.users_client import Names
from servicekit.database.engine import Database
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.process.clock import Clock, utc_now
from servicekit.process.ids import new_id
from servicekit.web.encoders import encoder_of
from servicekit.web.idempotency import Made
from servicekit.web.preconditions import IfMatch
from servicekit.wire.envelope import status_of
from servicekit.wire.errors import AppError, DeadlineExceeded, Forbidden, PreconditionRequired, Unavailable
from servicekit.wire.json_reader import read_stored


class Steps:
    """The use cases; thread-safe."""

    def __init__(self, database: Database, names: Names | None = None, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._names = names
        self._clock = clock

    def take(self, item_id: UUID, wanted: StepBody, if_match: IfMatch, caller: Principal) -> Made[WorkItemView]:
        """Take a step, or return what the same request got before.

        Raises `PreconditionRequired`, `PreconditionFailed`, `WorkItemNotFound`, `OperationReused`, and what
        `domain.steps.decide` refuses with.
        """
        _require_fit(wanted)
        if not if_match.is_given:
            raise PreconditionRequired
        return self._take(item_id, wanted, wanted.op_id, if_match, caller)

    def take_each(self, wanted: BulkStepBody, caller: Principal) -> StepOutcomes:
        """Take a step of many items, in a transaction each; those after one for which there is no database or time left
        are not tried. Raises `Invalid` for what no item can take."""
        _require_fit(wanted)
        batch_id = new_id()
        outcomes: list[StepOutcome] = []
        end: AppError | None = None
        for one in wanted.items:
            if end is not None:
                outcomes.append(_refused(one, end))
                continue
            try:
                seen = IfMatch(f'"{one.version}"')
                made = self._take(one.id, wanted, one.op_id, seen, caller, batch_id)
            except (Unavailable, DeadlineExceeded) as exc:
                end = exc
                outcomes.append(_refused(one, exc))
            except AppError as exc:
                outcomes.append(_refused(one, exc))
            else:
                outcomes.append(_taken(one, made))
        taken = sum(outcome.error is None for outcome in outcomes)
        return StepOutcomes.unchecked(batch_id=batch_id, taken=taken, refused=len(outcomes) - taken, items=outcomes)

    def _take(
        self,
        item_id: UUID,
        wanted: StepFields,
        op_id: UUID,
        if_match: IfMatch,
        caller: Principal,
        batch_id: UUID | None = None,
    ) -> Made[WorkItemView]:
        reach = caller.reach(Action.CHANGE_SITES)
        asked = Asked.of(op_id, caller.user_id, {"item": item_id, **wanted.said()})
        now = self._clock()
        # First, so that whoever does not see the item keeps nobody waiting, and is told no answer of before either.
        found = items.find(self._database, item_id, caller.user_id, now, reach=reach)
        if (answer := operations.find_answer(self._database, asked)) is not None:
            return _again(answer, actor_of(found, caller))
        name = name_of(caller, self._names)
        with self._database.transaction() as session:
            site = sites.begin(session, found.site_id, now)
            item = items.lock(session, item_id, caller.user_id, now, reach=reach)
            who = actor_of(item, caller, name)
            # The same request may have been here until now.
            if (answer := operations.find_answer(session, asked)) is not None:
                session.rollback()
                return _again(answer, who)
            require_seen(session, item, who, caller, if_match)
            request = wanted.request()
            assignee = original = default_due_on = None
            if request.assignee_id is not None:
                assignee = members.enabled(session, site.id, request.assignee_id)
            if request.duplicate_of is not None:
                original = items.find_beside(session, item, request.duplicate_of, caller.user_id, now, reach=reach)
            if request.step in SUBMITTING:
                default_due_on = due_by_rules(session, site, item.severity)
            judged = decide(
                item,
                request,
                who,
                site.today,
                assignee=assignee,
                original=original,
                default_due_on=default_due_on,
            )
            if not isinstance(judged, Change):
                raise judged
            values = {**judged.values, **dict.fromkeys(judged.stamped, max(now, item.updated_at))}
            if request.step is Step.REOPEN and not _has_worker(session, item):
                values["assignee_id"] = None
            entry = Entry(
                request.step,
                who,
                reason=request.reason or "",
                note=request.note or "",
                override=judged.override,
                phone_at=wanted.phone_at,
                op_id=op_id,
                batch_id=batch_id,
            )
            view = shown(items.write(session, site, item, values, entry), who, caller)
            # Customers take no steps.
            assert isinstance(view, WorkItemView)
            operations.remember(session, asked, encoder_of(WorkItemView)(view).encode(), now)
        return Made(view)


def _has_worker(session: Session, item: Any) -> bool:
    """Whether the assignee of an item can still work on it; while it is closed, nobody takes them off it."""
    if item.assignee_id is None:
        return False
    member = members.enabled(session, item.site_id, item.assignee_id)
    return member is not None and member.role in WORKERS


def _require_fit(wanted: StepFields) -> None:
    if (wrong := misfit(wanted.request())) is not None:
        raise wrong


def _again(answer: bytes, who: Actor) -> Made[WorkItemView]:
    """What was answered before, to somebody who sees the item still. Raises `Forbidden` for who is a customer now."""
    if who.role is SiteRole.CUSTOMER and not who.override:
        raise Forbidden
    return Made(WorkItemView.model_validate(read_stored(answer.decode())), replayed=True)


def _taken(one: ItemSeen, made: Made[WorkItemView]) -> StepOutcome:
    return StepOutcome.unchecked(
        id=one.id,
        op_id=one.op_id,
        status=200,
        replayed=made.replayed,
        state=made.view.state,
        version=made.view.version,
        error=None,
    )


def _refused(one: ItemSeen, error: AppError) -> StepOutcome:
    details = [RefusedField.unchecked(field=detail.field, message=detail.message) for detail in error.details]
    return StepOutcome.unchecked(
        id=one.id,
        op_id=one.op_id,
        status=status_of(error),
        replayed=False,
        state=None,
        version=None,
        error=StepError.unchecked(code=error.code, message=error.message, details=details),
    )
