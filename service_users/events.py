"""The events of the users service. docs/reference/events.md lists them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from servicekit.events.cloudevents import Event
from servicekit.web.schemas import Timestamp


class UserData(BaseModel):
    """A user after the change; a password never leaves."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    email: str
    name: str
    roles: list[str]
    created_at: Timestamp
    updated_at: Timestamp


class UserDeletedData(BaseModel):
    """Who is gone. Nothing else of a person is kept."""

    id: UUID


#: The data of each event.
CATALOGUE: dict[str, type[BaseModel]] = {
    "user.created": UserData,
    "user.updated": UserData,
    "user.deleted": UserDeletedData,
}


def created(user: object) -> Event:
    """A user was stored: any object with the attributes of `UserData`."""
    return _event("user.created", UserData.model_validate(user))


def updated(user: object) -> Event:
    """Fields of a user were changed; `user` is as it is now."""
    return _event("user.updated", UserData.model_validate(user))


def deleted(user_id: UUID, moment: datetime) -> Event:
    """A user was removed."""
    return Event(type="user.deleted", subject=user_id, data={"id": user_id}, time=moment)


def _event(type: str, data: UserData) -> Event:
    return Event(type=type, subject=data.id, data=data.model_dump(), time=data.updated_at)
