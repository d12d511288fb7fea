"""Request and response bodies of accounts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from service_users.accounts.password_rules import LONGEST, SHORTEST
from service_users.schemas import EmailSought, Name
from servicekit.web.schemas import Body, Timestamp, View

_Secret = Field(json_schema_extra={"writeOnly": True})
Known = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST), _Secret]
#: Its rules are password_rules'.
New = Annotated[str, _Secret, Field(json_schema_extra={"minLength": SHORTEST, "maxLength": LONGEST, "writeOnly": True})]
Shown = Annotated[str, StringConstraints(max_length=200), _Secret]
Code = Annotated[str, StringConstraints(min_length=6, max_length=40), _Secret]


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


class LoginCode(Body):
    """The code that a pending login waits for."""

    example: ClassVar[Mapping[str, Any]] = {"pending_token": "swp_AZ8E2Yc5d3uT", "code": "492039"}

    pending_token: Shown
    code: Code = Field(description="six digits of the app, or a recovery code, which is good once")


class FactorCreate(Body):
    """A second factor."""

    example: ClassVar[Mapping[str, Any]] = {"name": "Phone"}

    name: Name = Field(description="on which device the app is")


class FactorCode(Body):
    """What the app shows."""

    example: ClassVar[Mapping[str, Any]] = {"code": "492039"}

    code: Code


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
    """A session that began or went on; with a cookie it has no tokens. With a second factor it has yet to begin."""

    session_id: UUID | None
    token_type: Literal["Bearer"] = "Bearer"
    access_token: str | None
    expires_in: int | None = Field(description="how long the access token is good, in seconds")
    refresh_token: str | None = Field(description="good once: the answer has the next one")
    device_token: str | None = Field(description="only after a login: by it the next one knows this device")
    pending_token: str | None = Field(
        description="only of a login that waits for a code: send both to POST /auth/login/code"
    )


class MeView(View):
    """Who calls."""

    id: UUID | None = Field(description="null where nobody logs in")
    email: str | None
    name: str | None
    roles: list[str]
    session_id: UUID | None = Field(description="the session or the API key")
    must_change_password: bool


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


class FactorView(View):
    """A second factor."""

    id: UUID
    name: str
    recovery_codes_left: int
    confirmed_at: Timestamp
    last_used_at: Timestamp | None


class FactorList(View):
    """Second factors, the oldest first."""

    factors: list[FactorView]


class NewFactorView(View):
    """A second factor that is yet to be confirmed, and what the app must know, shown only now."""

    id: UUID
    name: str
    secret: str = Field(description="base32, to be typed")
    uri: str = Field(description="the same for a QR code")
    expires_in: int = Field(description="how long it waits for its confirmation, in seconds")


class ConfirmedFactorView(FactorView):
    """A second factor that counts from now on."""

    recovery_codes: list[str] = Field(description="each is good once, instead of a code; shown only now")


class FactorsRemoved(View):
    """What is no longer asked for."""

    factors: int = Field(description="how many factors")


class Ended(View):
    """What is over."""

    sessions: int = Field(description="how many sessions")


class Credential(Body):
    """What a program or a browser shows to the gateway; where nobody logs in, the id of whom somebody acts as."""

    kind: Literal["key", "cookie", "act_as"]
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
