"""Ends a user's tasks and schedules once the users service has deleted the user, lets them in no longer, or has given
them roles by which they may run none."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol
from uuid import UUID

from sqlalchemy.orm import Session

from service_tasks.domain.task import USER_DELETED, USER_DISABLED, USER_WITHOUT_TASKS
from servicekit.events import tombstones
from servicekit.events.cloudevents import Event, EventData, SubjectId, read_data
from servicekit.identity.roles import Action, Extent, Role
from servicekit.web.schemas import Id


class _Account(EventData):
    id: Id
    roles: list[str]
    #: None from a sender that does not tell them yet.
    previous_roles: list[str] | None = None


class TasksOfUsers(Protocol):
    def cancel_of_user(self, session: Session, user_id: UUID, reason: str) -> None:
        """Cancel every live task of the user, with all that follows the end of a task."""


class SchedulesOfUsers(Protocol):
    def pause_of_users(self, session: Session, user_ids: Collection[UUID]) -> None:
        """Pause every schedule of these users, who were deleted."""

    def pause_of_disabled(self, session: Session, user_id: UUID, reason: str) -> None:
        """Pause every schedule of this user; waits for those that are just being run or changed."""


class UserDeparture:
    """Works in the given transaction, which also records the event."""

    def __init__(self, tasks: TasksOfUsers, schedules: SchedulesOfUsers) -> None:
        self._tasks = tasks
        self._schedules = schedules

    def act_on_deleted(self, session: Session, event: Event) -> None:
        """Cancel the user's tasks, pause their schedules, and refuse new ones from now on.

        Raises `Invalid` for bad data.
        """
        user_id = read_data(SubjectId, event).id
        tombstones.bury(session, user_id, event.time)
        self._tasks.cancel_of_user(session, user_id, USER_DELETED)
        self._schedules.pause_of_users(session, {user_id})

    def act_on_disabled(self, session: Session, event: Event) -> None:
        """Pause the schedules of a user who may not log in any more, and cancel the tasks.

        Raises `Invalid` for bad data, and `DatabaseLocked`.
        """
        self._end(session, read_data(SubjectId, event).id, USER_DISABLED)

    def act_on_updated(self, session: Session, event: Event) -> None:
        """The same for a user whose new roles permit no tasks. Raises `Invalid` for bad data, and `DatabaseLocked`."""
        account = read_data(_Account, event)
        before = account.previous_roles
        if not _permit_tasks(account.roles) and (before is None or _permit_tasks(before)):
            self._end(session, account.id, USER_WITHOUT_TASKS)

    def _end(self, session: Session, user_id: UUID, reason: str) -> None:
        # In this order: what a schedule is just making is there when its lock is given.
        self._schedules.pause_of_disabled(session, user_id, reason)
        self._tasks.cancel_of_user(session, user_id, reason)


def _permit_tasks(roles: list[str]) -> bool:
    return Action.CHANGE_TASKS.extents[Role.highest(roles)] is not Extent.NONE
