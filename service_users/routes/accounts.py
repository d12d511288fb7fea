"""The routes of accounts: parse, call, answer."""

from __future__ import annotations

from uuid import UUID

from service_users.accounts.schemas import (
    Ended,
    Login,
    LoginCode,
    MeView,
    PasswordChange,
    Refresh,
    SessionList,
    TokensView,
)
from service_users.accounts.sessions import KNOWN, LASTS
from service_users.accounts.use_cases import Accounts, LoggedIn
from service_users.errors import (
    AuthIsOff,
    InvalidCredential,
    SessionNotFound,
    TooManyAttempts,
    TooManyPasswords,
    UserNotFound,
)
from service_users.use_cases import Users
from servicekit.identity.principal import Principal
from servicekit.identity.reach import Reach
from servicekit.identity.roles import Action
from servicekit.web.routes import Answer, Routes, Sender

#: Of the session, and of the device. Over TLS a browser takes it from nobody else (RFC 6265bis, section 4.1.3.2).
COOKIE, DEVICE = "siteworks", "siteworks-device"
_BODY = 4096
#: Of answers with tokens (RFC 6749 section 5.1).
_NOT_STORED = {"Cache-Control": "no-store"}
_SECURE_PREFIX = "__Host-"


def cookie_name(name: str, *, secure: bool) -> str:
    """A cookie's name as it travels: prefixed over TLS, without which a browser refuses the prefix."""
    return f"{_SECURE_PREFIX}{name}" if secure else name


def set_cookie(client: Sender, name: str, value: str, seconds: float) -> str:
    """The value of a Set-Cookie field, for so many seconds; none of them ends it."""
    secure = "; Secure" if client.secure else ""
    name = cookie_name(name, secure=client.secure)
    return f"{name}={value}; Path=/; Max-Age={int(seconds)}; HttpOnly; SameSite=Lax{secure}"


def session_cookies(made: LoggedIn, client: Sender) -> tuple[str, ...]:
    """The cookies of a new session; none for one that is no browser's."""
    if made.cookie is None:
        return ()
    assert made.device_token is not None
    session = set_cookie(client, COOKIE, made.cookie, LASTS.total_seconds())
    return (session, set_cookie(client, DEVICE, made.device_token, KNOWN.total_seconds()))


def _began(made: LoggedIn, client: Sender) -> Answer[TokensView]:
    return Answer(made.view, headers=_NOT_STORED, cookies=session_cookies(made, client))


def account_routes(accounts: Accounts | None, users: Users) -> Routes:
    """Declare the operations on accounts; without `accounts` nobody logs in."""
    api = Routes("accounts")

    def opened() -> Accounts:
        if accounts is None:
            raise AuthIsOff
        return accounts

    @api.post(
        "/auth/login",
        action=Action.PUBLIC,
        errors=(InvalidCredential, TooManyAttempts, TooManyPasswords, AuthIsOff),
        body_limit=_BODY,
    )
    def log_in(body: Login, client: Sender) -> Answer[TokensView]:
        """Log in by password. After a few wrong ones each makes the next wait, up to a minute. Whoever has a second
        factor gets only a `pending_token`."""
        device = client.cookies.get(cookie_name(DEVICE, secure=client.secure))
        return _began(opened().log_in(body, client, device), client)

    @api.post(
        "/auth/login/code",
        action=Action.PUBLIC,
        errors=(InvalidCredential, TooManyAttempts, AuthIsOff),
        body_limit=_BODY,
    )
    def log_in_by_code(body: LoginCode, client: Sender) -> Answer[TokensView]:
        """Log in with a second factor, within five minutes of the password."""
        return _began(opened().log_in_by_code(body.pending_token, body.code, client), client)

    @api.post("/auth/refresh", action=Action.PUBLIC, errors=(InvalidCredential, AuthIsOff), body_limit=_BODY)
    def refresh(body: Refresh, client: Sender) -> Answer[TokensView]:
        """Get the next access token. Sent again within 10 s, a refresh token gives the same answer; later it ends the
        session, since somebody else may have it."""
        return Answer(opened().refresh(body.refresh_token, client), headers=_NOT_STORED)

    @api.post("/auth/logout", action=Action.OWN_LOGIN, errors=(AuthIsOff,))
    def log_out(caller: Principal, client: Sender) -> Answer[Ended]:
        """End the session that this request came by."""
        ended = opened().log_out(caller, client, reach=caller.reach(Action.OWN_LOGIN))
        return Answer(ended, cookies=(set_cookie(client, COOKIE, "", 0),))

    @api.post("/auth/logout-all", action=Action.OWN_LOGIN, errors=(InvalidCredential, AuthIsOff))
    def log_out_everywhere(caller: Principal, client: Sender) -> Answer[Ended]:
        """End all of your sessions."""
        return Answer(opened().log_out_everywhere(caller, client), cookies=(set_cookie(client, COOKIE, "", 0),))

    @api.get("/auth/me", action=Action.SEE_ONESELF, errors=(UserNotFound,), shared="by caller")
    def show_me(caller: Principal) -> MeView:
        """Show who you are."""
        if caller.user_id is None:
            return MeView(
                id=None, email=None, name=None, roles=[caller.role], session_id=None, must_change_password=False
            )
        me = users.get(caller.user_id, reach=Reach.own(caller.user_id))
        return MeView(
            id=me.id,
            email=me.email,
            name=me.name,
            roles=me.roles,
            session_id=caller.session_id,
            must_change_password=caller.must_change_password,
        )

    @api.put(
        "/auth/password",
        action=Action.OWN_LOGIN,
        errors=(InvalidCredential, TooManyAttempts, TooManyPasswords, AuthIsOff),
        body_limit=_BODY,
    )
    def update_password(body: PasswordChange, caller: Principal, client: Sender) -> Ended:
        """Change your password and end your other sessions. Earlier access tokens end, too: refresh yours."""
        return opened().change_password(body, caller, client)

    @api.get("/auth/sessions", action=Action.OWN_ACCOUNT)
    def list_sessions(caller: Principal) -> SessionList:
        """List your sessions."""
        if accounts is None:
            return SessionList(sessions=[])
        return accounts.listed(caller, reach=caller.reach(Action.OWN_ACCOUNT))

    @api.delete("/auth/sessions", action=Action.OWN_ACCOUNT, errors=(InvalidCredential, AuthIsOff))
    def end_other_sessions(caller: Principal, client: Sender) -> Ended:
        """End your other sessions. Earlier access tokens end, too: refresh yours."""
        return opened().end_others(caller, client, reach=caller.reach(Action.OWN_ACCOUNT))

    @api.delete("/auth/sessions/{id}", action=Action.OWN_ACCOUNT, errors=(SessionNotFound, AuthIsOff))
    def end_session(id: UUID, caller: Principal, client: Sender) -> Ended:
        """End one of your sessions."""
        return opened().end(id, caller, client, reach=caller.reach(Action.OWN_ACCOUNT))

    return api
