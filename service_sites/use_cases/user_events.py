"""What happens on sites when somebody's account changes."""

from __future__ import annotations

from pydantic import Field
from sqlalchemy.orm import Session

from service_sites.persistence import comments, members
from service_sites.use_cases.leaving import leave_all
from servicekit.events import tombstones
from servicekit.events.cloudevents import Event, EventData, SubjectId, read_data
from servicekit.identity.roles import Action, Extent, Role
from servicekit.process.clock import Clock, utc_now
from servicekit.web.schemas import Id


class _Named(EventData):
    id: Id
    name: str
    roles: list[str] = Field(default_factory=list)


class UserEvents:
    """The handlers; each raises `Invalid` for bad data."""

    def __init__(self, *, clock: Clock = utc_now) -> None:
        self._clock = clock

    def updated(self, session: Session, event: Event) -> None:
        """Show people under their new name, and take whose roles permit no work off it."""
        user, now = read_data(_Named, event), self._clock()
        if Action.CHANGE_SITES.extents[Role.highest(user.roles)] is Extent.NONE:
            leave_all(session, user.id, now)
        members.rename(session, user.id, user.name, now)

    def disabled(self, session: Session, event: Event) -> None:
        """Show who may not log in any more, and take them off their work."""
        user_id, now = read_data(SubjectId, event).id, self._clock()
        leave_all(session, user_id, now)
        members.mark(session, user_id, True, now)

    def enabled(self, session: Session, event: Event) -> None:
        """Show that somebody may log in again."""
        members.mark(session, read_data(SubjectId, event).id, False, self._clock())

    def deleted(self, session: Session, event: Event) -> None:
        """Remove them from all sites, and let nobody add them again."""
        user_id = read_data(SubjectId, event).id
        tombstones.bury(session, user_id, event.time)
        leave_all(session, user_id, self._clock())
        comments.forget_watcher(session, user_id)
        members.forget(session, user_id)
