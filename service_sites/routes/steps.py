"""The steps of work items over HTTP: parse, call, answer."""

from __future__ import annotations

from uuid import UUID

from service_sites.errors import OperationReused, ReasonRequired, StepNotPossible, WorkItemNotFound
from service_sites.schemas.items import WorkItemView
from service_sites.schemas.steps import BulkStepBody, StepBody, StepOutcomes
from service_sites.use_cases.steps import Steps
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web.preconditions import IfMatch
from servicekit.web.routes import Answer, Routes
from servicekit.wire.errors import Forbidden, PreconditionRequired


def step_routes(steps: Steps) -> Routes:
    """Declare the operations on the steps of work items."""
    api = Routes("work items")

    @api.post(
        "/work-items/{id}/steps",
        action=Action.CHANGE_SITES,
        errors=(
            Forbidden,
            ReasonRequired,
            WorkItemNotFound,
            StepNotPossible,
            OperationReused,
            PreconditionRequired,
        ),
    )
    def take_step(id: UUID, body: StepBody, if_match: IfMatch, caller: Principal) -> Answer[WorkItemView]:
        """Take a step of a work item: one of its `permitted_steps`.

        Needs its ETag in If-Match. A repeated op_id answers as the first time, with `Idempotency-Replayed: true`, and
        takes no second step. An administrator may take any step that the state allows, with a reason.
        """
        made = steps.take(id, body, if_match, caller)
        return Answer(made.view, headers=made.headers)

    @api.post("/work-items/steps", action=Action.CHANGE_SITES)
    def take_steps(body: BulkStepBody, caller: Principal) -> StepOutcomes:
        """Take the same step of up to 500 work items, each by itself: some may be refused.

        What was taken stays so, whatever becomes of the others, and may be repeated with the same op_ids.
        """
        return steps.take_each(body, caller)

    return api
