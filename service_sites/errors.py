"""Errors of the sites service.

Forbidden  ⊃ ReasonRequired
NotFound   ⊃ WorkItemNotFound
Conflict   ⊃ StepNotPossible
"""

from __future__ import annotations

from servicekit.wire.errors import Conflict, FieldError, Forbidden, NotFound


class WorkItemNotFound(NotFound):
    """There is no work item with this id."""

    code = "work_item_not_found"


class ReasonRequired(Forbidden):
    """An administrator who does what their role on the site does not allow gives a reason.

    It is recorded with the step, which is marked as an override.
    """

    code = "reason_required"

    def __init__(self) -> None:
        super().__init__(details=[FieldError("reason", "is required of an administrator")])


class StepNotPossible(Conflict):
    """The work item's state does not allow this step.

    Read the item again: its `permitted_steps` are those that you may take now.
    """

    code = "step_not_possible"
