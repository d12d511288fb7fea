"""The routes of signing in at a provider: parse, call, answer."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from service_users.accounts.changes import By
from service_users.accounts.sign_in_schemas import (
    IdentityLink,
    IdentityList,
    IdentityView,
    ProviderAnswer,
    ProviderView,
    SignedInView,
    SignInCreate,
    SignInView,
)
from service_users.errors import (
    AuthIsOff,
    IdentityNotFound,
    IdentityTaken,
    InvalidCredential,
    LoginNotFresh,
    NoProvider,
    ProviderUnavailable,
    SignInRefused,
    TooManyAttempts,
    UnknownIdentity,
)
from service_users.routes.accounts import cookie_name, session_cookies, set_cookie
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web.routes import Answer, Routes, Sender
from servicekit.wire.errors import AppError

if TYPE_CHECKING:
    # It loads cryptography, of which a service without a provider has no need.
    from service_users.accounts.sign_in import Begun, SignIns

_COOKIE = "siteworks-sign-in"
#: As seen from the callback, below whatever prefix.
_CONSOLE = "../../console"
_BODY = 4096
_NOT_STORED = {"Cache-Control": "no-store"}


def sign_in_routes(sign_ins: SignIns | None, name: str | None, *, login: bool) -> Routes:
    """Declare the operations; without `sign_ins` there is no provider, and without `login` nobody logs in."""
    api = Routes("sign in")

    def opened() -> SignIns:
        if not login:
            raise AuthIsOff
        if sign_ins is None:
            raise NoProvider
        return sign_ins

    def begun(made: Begun, client: Sender) -> Answer[SignInView]:
        view = SignInView(address=made.address, expires_in=made.expires_in)
        cookie = set_cookie(client, _COOKIE, made.cookie, made.expires_in)
        return Answer(view, headers=_NOT_STORED, cookies=(cookie,))

    @api.get("/auth/oidc", action=Action.PUBLIC)
    def show_provider() -> ProviderView:
        """Show the sign-in provider."""
        return ProviderView(name=None if sign_ins is None else name)

    @api.post(
        "/auth/oidc/start",
        action=Action.PUBLIC,
        status=201,
        errors=(NoProvider, ProviderUnavailable, AuthIsOff),
        body_limit=_BODY,
    )
    def start_sign_in(body: SignInCreate, client: Sender) -> Answer[SignInView]:
        """Begin to log in at the sign-in provider."""
        return begun(opened().begin(body.next, body.invitation), client)

    @api.post(
        "/auth/oidc/link",
        action=Action.OWN_ACCOUNT,
        status=201,
        errors=(NoProvider, ProviderUnavailable, LoginNotFresh, InvalidCredential, AuthIsOff),
        body_limit=_BODY,
    )
    def link_identity(body: IdentityLink, caller: Principal, client: Sender) -> Answer[SignInView]:
        """Begin to link an identity at the sign-in provider, within five minutes of a login."""
        made = opened().begin_link(body.next, caller, reach=caller.reach(Action.OWN_ACCOUNT))
        return begun(made, client)

    @api.get(
        "/auth/oidc/callback",
        action=Action.PUBLIC,
        status=303,
        errors=(
            NoProvider,
            ProviderUnavailable,
            SignInRefused,
            UnknownIdentity,
            IdentityTaken,
            InvalidCredential,
            TooManyAttempts,
            AuthIsOff,
        ),
    )
    def finish_sign_in(query: ProviderAnswer, client: Sender) -> Answer[SignedInView]:
        """Come back from the sign-in provider, in the browser that went there. A login then has its cookie. A browser
        that asks for a page is shown a failure by the console."""
        cookie = client.cookies.get(cookie_name(_COOKIE, secure=client.secure))
        cookies: tuple[str, ...] = ()
        try:
            done = opened().finish(query, cookie, client)
        except AppError as exc:
            if not client.wants_page:
                raise
            next_page = f"{_CONSOLE}#/account?failed={exc.code}"
        else:
            next_page = done.next
            cookies = () if done.logged_in is None else session_cookies(done.logged_in, client)
        return Answer(
            SignedInView(next=next_page),
            headers={**_NOT_STORED, "Location": next_page},
            cookies=(*cookies, set_cookie(client, _COOKIE, "", 0)),
        )

    @api.get("/auth/identities", action=Action.OWN_ACCOUNT)
    def list_identities(caller: Principal) -> IdentityList:
        """List your identities at the sign-in provider."""
        if sign_ins is None:
            return IdentityList(identities=[])
        return sign_ins.listed(reach=caller.reach(Action.OWN_ACCOUNT))

    @api.delete(
        "/auth/identities/{id}",
        action=Action.OWN_ACCOUNT,
        errors=(IdentityNotFound, NoProvider, LoginNotFresh, InvalidCredential, AuthIsOff),
    )
    def delete_identity(id: UUID, caller: Principal, client: Sender) -> IdentityView:
        """Remove the link to an identity, within five minutes of a login."""
        by = By(caller.user_id, client.address)
        return opened().remove(id, caller, by, reach=caller.reach(Action.OWN_ACCOUNT))

    return api
