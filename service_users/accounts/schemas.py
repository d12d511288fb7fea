"""Request and response bodies of accounts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from service_users.accounts.password_rules import LONGEST, SHORTEST
from service_users.schemas import EmailSought
from servicekit.web.schemas import Body, Timestamp, View

_Secret = Field(json_schema_extra={"writeOnly": True})
Known = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST), _Secret]
#: Its rules are password_rules'.
New = Annotated[str, _Secret, Field(json_schema_extra={"minLength": SHORTEST, "maxLength": LONGEST, "writeOnly": True})]
Shown = Annotated[str, StringConstraints(max_length=200), _Secret]


class Login(Body):
    """Who logs in, and by what the session goes on."""

    example: ClassVar[Mapping[str, Any]] = {"email": "user@example.com", "password": "correct pony accu paperclip"}

    email: EmailSought = Field(examples=["user@example.com"])
    password: Known
    session: Literal["token", "cookie"] = Field(
        default="token",
        description="token: access and refresh tokens; cookie: for browsers, a cookie that no script can read",
    )
    device_token: Shown | None = Field(
        default=None, description="as the last login gave it: no wrong attempts of others delay a known device"
    )


class Refresh(Body):
    """What carries a session on."""

    example: ClassVar[Mapping[str, Any]] = {"refresh_token": "swr_AZ8E2Yc5d3uT"}

    refresh_token: Shown


class PasswordChange(Body):
    """The present password, and the new one."""

    example: ClassVar[Mapping[str, Any]] = {
        "current": "correct pony accu paperclip",
        "new": "three cranes turn to the left",
    }

    current: Known
    new: New = Field(description="hard to guess, and another one than before")


class TokensView(View):
    """A session that began or went on; with a cookie it has no tokens."""

    session_id: UUID
    token_type: Literal["Bearer"] = "Bearer"
    access_token: str | None
    expires_in: int | None = Field(description="how long the access token is good, in seconds")
    refresh_token: str | None = Field(description="good once: the answer has the next one")
    device_token: str | None = Field(description="only after a login: by it the next one knows this device")


class MeView(View):
    """Who calls."""

    id: UUID | None = Field(description="null where nobody logs in")
    email: str | None
    name: str | None
    roles: list[str]
    session_id: UUID | None = Field(description="the session or the API key")


class SessionView(View):
    """A login."""

    id: UUID
    current: bool = Field(description="whether it is the caller's")
    kind: Literal["token", "cookie"]
    address: str
    agent: str = Field(description="what the client said it is")
    created_at: Timestamp
    refreshed_at: Timestamp
    expires_at: Timestamp


class SessionList(View):
    """Sessions, the newest first."""

    sessions: list[SessionView]


class Ended(View):
    """What is over."""

    sessions: int = Field(description="how many sessions")


class Credential(Body):
    """What a program or a browser shows to the gateway."""

    kind: Literal["key", "cookie"]
    credential: Known


class ExchangedView(View):
    """An access token that stands for it."""

    access_token: str
    expires_in: int


class RevocationsView(View):
    """Sessions and API keys that have ended, and of users the least epoch of a good token."""

    sessions: list[UUID]
    keys: list[UUID]
    users: dict[str, int]
