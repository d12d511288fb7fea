"""Request and response bodies of API keys, of what administrators do about accounts, and of links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import AfterValidator, Field

from service_users.accounts.schemas import New, Shown
from service_users.schemas import Email, EmailSought, Name
from servicekit.identity.roles import Action
from servicekit.web.schemas import Body, Id, Timestamp, View

SCOPES = sorted({scope for action in Action for scope in action.scopes})


def _scopes(scopes: list[str]) -> list[str]:
    if not set(scopes) <= set(SCOPES):
        raise ValueError(f"may be {', '.join(SCOPES)}")
    if len(set(scopes)) != len(scopes):
        raise ValueError("must not name a scope twice")
    return scopes


_Scopes = Annotated[
    list[str],
    Field(min_length=1, max_length=8, json_schema_extra={"uniqueItems": True, "items": {"enum": SCOPES}}),
    AfterValidator(_scopes),
]


class ApiKeyCreate(Body):
    """A key for a program: what it is for, and what it may do."""

    example: ClassVar[Mapping[str, Any]] = {"name": "Nightly import", "scopes": ["orders"]}

    name: Name = Field(description="what it is for")
    scopes: _Scopes = Field(description="what it may do, within what its owner may; see the role table")
    expires_at: Timestamp | None = Field(default=None, description="when it ends by itself; never if left out")


class ApiKeyView(View):
    """An API key, without its text."""

    id: UUID
    name: str
    hint: str = Field(description="its last characters")
    scopes: list[str]
    created_at: Timestamp
    expires_at: Timestamp | None
    last_used_at: Timestamp | None = Field(description="to the minute")


class NewApiKeyView(ApiKeyView):
    """A key that was made."""

    key: str = Field(description="its text, shown only now")


class ApiKeyList(View):
    """API keys, the newest first."""

    keys: list[ApiKeyView]


class AccountView(View):
    """Whether somebody may log in."""

    id: UUID
    disabled_at: Timestamp | None


class WholeAccountView(AccountView):
    """By what somebody may log in."""

    has_password: bool
    must_change_password: bool = Field(description="an administrator has set the password")
    email_verified_at: Timestamp | None = Field(description="when they proved their address")
    factors: int = Field(description="how many second factors")
    identities: int = Field(description="how many identities at the sign-in provider")


class Forgot(Body):
    """Whose password is forgotten."""

    example: ClassVar[Mapping[str, Any]] = {"email": "user@example.com"}

    email: EmailSought = Field(examples=["user@example.com"])


class Reset(Body):
    """The token of a link, and the new password."""

    example: ClassVar[Mapping[str, Any]] = {"token": "swl_AZ8E2Yc5d3uT", "password": "correct pony accu paperclip"}

    token: Shown
    password: New


class OtherEmail(Body):
    """The address that one wants."""

    example: ClassVar[Mapping[str, Any]] = {"email": "user@example.com"}

    email: Email


class Confirm(Body):
    """The token of a link that proves an address."""

    example: ClassVar[Mapping[str, Any]] = {"token": "swl_AZ8E2Yc5d3uT"}

    token: Shown


class Accepted(View):
    """A link was made, if there is anybody whom it is for."""

    expires_in: int = Field(description="how long it is good, in seconds")


class ConfirmedView(View):
    """Who has which address now."""

    id: UUID
    email: str


class LinkCreate(Body):
    """What a link is for."""

    example: ClassVar[Mapping[str, Any]] = {"purpose": "reset"}

    purpose: Literal["reset", "invitation", "email"] = Field(
        description="reset and invitation set a password; email proves the address that they have asked for"
    )
    mail: bool = Field(default=False, description="whether they get it by mail, instead of you")


class LinkView(View):
    """A link to hand over."""

    purpose: Literal["reset", "invitation", "email"]
    token: str | None = Field(
        description="for POST /auth/reset or /auth/email/confirm, or the page /console#/link/PURPOSE/TOKEN; good once, "
        "and null if it goes by mail"
    )
    expires_at: Timestamp


class MailWanted(Body):
    """Which message."""

    id: Id


class MailView(View):
    """A message to send, now."""

    to: str
    subject: str
    text: str
