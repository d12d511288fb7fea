"""Errors of the sites service.

NotFound   ⊃ SiteNotFound, WorkItemNotFound
Conflict   ⊃ SiteKeyTaken, StepNotPossible
Forbidden  ⊃ ReasonRequired
"""

from __future__ import annotations

from servicekit.wire.errors import Conflict, FieldError, Forbidden, NotFound


class SiteNotFound(NotFound):
    """There is no site with this id, or you are not one of its people."""

    code = "site_not_found"


class SiteKeyTaken(Conflict):
    """Another site has this key."""

    code = "site_key_taken"


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
