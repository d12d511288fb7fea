"""Errors of the sites service.

Invalid      ⊃ UnknownLocation, UnknownPerson
Forbidden    ⊃ ReasonRequired
NotFound     ⊃ CalendarDayNotFound, CommentNotFound, LinkNotFound, LocationNotFound, MemberNotFound, SiteNotFound,
               WorkItemNotFound
Conflict     ⊃ CommentSettled, LastManager, LocationInUse, LocationNameTaken, MemberExists, OperationReused,
               SiteKeyTaken, StepNotPossible, TooManyLocations
Unavailable  ⊃ PeopleUnavailable
"""

from __future__ import annotations

from servicekit.wire.errors import Conflict, FieldError, Forbidden, Invalid, NotFound, Unavailable


class UnknownPerson(Invalid):
    """There is nobody with this address or id who could work on a site.

    An account may also be disabled.
    """

    code = "person_not_found"

    def __init__(self, field: str) -> None:
        super().__init__(details=[FieldError(field, "there is nobody to be found by this")])


class SiteNotFound(NotFound):
    """There is no site with this id, or you are not one of its people."""

    code = "site_not_found"


class MemberNotFound(NotFound):
    """Nobody with this id is one of the site's people."""

    code = "member_not_found"


class LocationNotFound(NotFound):
    """There is no location with this id on the site."""

    code = "location_not_found"


class CalendarDayNotFound(NotFound):
    """The site has said nothing itself of this day."""

    code = "calendar_day_not_found"


class SiteKeyTaken(Conflict):
    """Another site has this key."""

    code = "site_key_taken"


class MemberExists(Conflict):
    """They are one of the site's people already.

    Change their role by PUT.
    """

    code = "member_exists"


class LastManager(Conflict):
    """The site would have no manager left.

    Make somebody else a manager first.
    """

    code = "last_manager"


class LocationInUse(Conflict):
    """Something is in this location: work items, or other locations."""

    code = "location_in_use"


class LocationNameTaken(Conflict):
    """Another location beside it has this name."""

    code = "location_name_taken"


class TooManyLocations(Conflict):
    """The site has as many locations as a site can have."""

    code = "too_many_locations"


class WorkItemNotFound(NotFound):
    """There is no work item with this id."""

    code = "work_item_not_found"


class UnknownLocation(Invalid):
    """The site has no location with this id."""

    def __init__(self) -> None:
        super().__init__(details=[FieldError("location_id", "must be one of the site's locations")])


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


class OperationReused(Conflict):
    """This op_id came before with a different request.

    Make a new one for each step and comment, and keep it for repetitions of the same.
    """

    code = "op_id_reused"


class CommentNotFound(NotFound):
    """There is no comment with this id on this work item."""

    code = "comment_not_found"


class CommentSettled(Conflict):
    """Comments can be changed for 15 minutes.

    Add another one.
    """

    code = "comment_settled"


class LinkNotFound(NotFound):
    """The work item has no such link."""

    code = "link_not_found"


class PeopleUnavailable(Unavailable):
    """The users service is not available at the moment, so the person cannot be found; try again."""

    code = "users_unavailable"
