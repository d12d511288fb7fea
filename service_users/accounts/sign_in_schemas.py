"""Request and response bodies of signing in at a provider (OpenID Connect)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import ConfigDict, Field, StringConstraints

from service_users.accounts.schemas import Shown
from servicekit.web.schemas import Body, Query, QueryText, Timestamp, View

#: So long that it fits into a body whose client writes every character as \uXXXX.
LONGEST_PAGE = 500
Page = Annotated[
    str,
    StringConstraints(max_length=LONGEST_PAGE),
    Field(description="the page to show afterwards, such as /console; the first one instead of any other host's"),
]
_Returned = Annotated[QueryText, StringConstraints(max_length=4096)]


class ProviderView(View):
    """The sign-in provider."""

    name: str | None = Field(description="what to call it on a button; null if there is none")


class SignInCreate(Body):
    """A login at the sign-in provider."""

    example: ClassVar[Mapping[str, Any]] = {"next": "/"}

    next: Page | None = None
    invitation: Shown | None = Field(default=None, description="the token of an invitation, which links the identity")


class IdentityLink(Body):
    """An identity at the sign-in provider, to be linked."""

    example: ClassVar[Mapping[str, Any]] = {"next": "/"}

    next: Page | None = None


class SignInView(View):
    """A sign-in that began; its browser has got a cookie for it."""

    address: str = Field(description="where the browser goes")
    expires_in: int = Field(description="how long it may take, in seconds")


class ProviderAnswer(Query):
    """What the sign-in provider sends back (RFC 6749, section 4.1.2; RFC 9207); what else it adds is passed over."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    state: _Returned | None = None
    code: _Returned | None = None
    iss: _Returned | None = None


class SignedInView(View):
    """A sign-in that ended well."""

    next: str = Field(description="the page to show, as Location says, too")


class IdentityView(View):
    """An identity at the sign-in provider, by which one may log in."""

    id: UUID
    issuer: str
    subject: str
    created_at: Timestamp
    last_used_at: Timestamp | None


class IdentityList(View):
    """Identities, the oldest first."""

    identities: list[IdentityView]
