"""The events of the users service. docs/reference/events.md lists them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from service_users.tables import User
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
    data = UserData.model_validate(user)
    return _event("user.created", data.id, data.model_dump(), data.created_at)


def updated(user: User) -> Event:
    """Fields of a user were changed."""
    return _event("user.updated", user.id, _data(user), user.updated_at)


def deleted(user_id: UUID, moment: datetime) -> Event:
    """A user was removed."""
    return _event("user.deleted", user_id, {"id": user_id}, moment)


def _data(user: User) -> dict[str, Any]:
    return UserData.model_validate(user).model_dump()


def _event(type: str, user_id: UUID, data: dict[str, Any], moment: datetime) -> Event:
    return Event(type=type, subject=user_id, data=data, time=moment)
