"""The events of the users service. docs/reference/events.md lists them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from servicekit.events.cloudevents import Event
from servicekit.web.encoders import encoder_of
from servicekit.web.schemas import Timestamp
from servicekit.wire.envelope import Written


class UserData(BaseModel):
    """A user after the change; a password never leaves."""

    id: UUID
    email: str
    name: str
    roles: list[str]
    created_at: Timestamp
    updated_at: Timestamp


class UserUpdatedData(UserData):
    """The same, and what the change began with."""

    previous_roles: list[str]


class UserDeletedData(BaseModel):
    """Who is gone. Nothing else of a person is kept."""

    id: UUID


class UserDisabledData(BaseModel):
    """Who may not log in any more."""

    id: UUID


class UserEnabledData(BaseModel):
    """Who may log in again."""

    id: UUID


class MailWantedData(BaseModel):
    """Which message is to be sent. Whoever sends it fetches it from the users service."""

    id: UUID


#: The data of each event.
CATALOGUE: dict[str, type[BaseModel]] = {
    "user.created": UserData,
    "user.updated": UserUpdatedData,
    "user.disabled": UserDisabledData,
    "user.enabled": UserEnabledData,
    "user.deleted": UserDeletedData,
    "mail.wanted": MailWantedData,
}


def created(user: Any) -> Event:
    """A user was stored: any object with the attributes of `UserData`."""
    return _event("user.created", user, user.created_at)


def updated(user: Any, previous_roles: list[str]) -> Event:
    """Fields of a user were changed; `user` is as it is now."""
    shown = {name: getattr(user, name) for name in UserData.model_fields}
    return _event(
        "user.updated", UserUpdatedData.model_construct(**shown, previous_roles=previous_roles), user.updated_at
    )


def disabled(user_id: UUID, moment: datetime) -> Event:
    """A user may not log in any more."""
    return _event("user.disabled", UserDisabledData(id=user_id), moment)


def enabled(user_id: UUID, moment: datetime) -> Event:
    """A user may log in again."""
    return _event("user.enabled", UserEnabledData(id=user_id), moment)


def deleted(user_id: UUID, moment: datetime) -> Event:
    """A user was removed."""
    return _event("user.deleted", UserDeletedData(id=user_id), moment)


def mail_wanted(link_id: UUID, moment: datetime) -> Event:
    """Somebody is to get a link by mail."""
    return _event("mail.wanted", MailWantedData(id=link_id), moment)


def _event(type: str, data: Any, moment: datetime) -> Event:
    return Event(type=type, subject=data.id, data=Written(encoder_of(CATALOGUE[type])(data)), time=moment)
