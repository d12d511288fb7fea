"""The routes of API keys, of what administrators do about accounts, and of the audit: parse, call, answer."""

from __future__ import annotations

from uuid import UUID

from service_users.accounts.access_schemas import (
    Accepted,
    AccountView,
    ApiKeyCreate,
    ApiKeyList,
    ApiKeyView,
    Confirm,
    ConfirmedView,
    Forgot,
    LinkCreate,
    LinkView,
    NewApiKeyView,
    OtherEmail,
    Reset,
    WholeAccountView,
)
from service_users.accounts.administration import Administration
from service_users.accounts.api_keys import ApiKeys
from service_users.accounts.audit import Audit
from service_users.accounts.audit_schemas import AuditPage, AuditQuery
from service_users.accounts.changes import By
from service_users.accounts.links import Links
from service_users.accounts.schemas import Ended, SessionList
from service_users.accounts.use_cases import Accounts
from service_users.errors import (
    ApiKeyNotFound,
    AuthIsOff,
    EmailTaken,
    InvalidCredential,
    LastAdministrator,
    LoginNotFresh,
    TooManyApiKeys,
    TooManyAttempts,
    TooManyPasswords,
    UserNotFound,
)
from service_users.use_cases import Users
from servicekit.identity.principal import Principal
from servicekit.identity.reach import Reach
from servicekit.identity.roles import Action
from servicekit.web.routes import Answer, Routes, Sender
from servicekit.wire.errors import Forbidden

_BODY = 4096
_NOT_STORED = {"Cache-Control": "no-store"}


def access_routes(
    keys: ApiKeys,
    administration: Administration,
    audit: Audit,
    accounts: Accounts | None,
    links: Links | None,
    users: Users,
) -> Routes:
    """Declare the operations; without `accounts` nobody logs in, and there are no keys."""
    api = Routes("access")

    def opened() -> Links:
        if links is None:
            raise AuthIsOff
        return links

    @api.post(
        "/auth/keys",
        action=Action.OWN_ACCOUNT,
        status=201,
        errors=(TooManyApiKeys, InvalidCredential, AuthIsOff, Forbidden),
        body_limit=_BODY,
    )
    def create_key(body: ApiKeyCreate, caller: Principal, client: Sender) -> Answer[NewApiKeyView]:
        """Make an API key, for a program. Its text is shown only in this answer; a key cannot make keys."""
        if accounts is None:
            raise AuthIsOff
        made = keys.create(body, caller, _by(caller, client), reach=caller.reach(Action.OWN_ACCOUNT))
        return Answer(made, headers=_NOT_STORED)

    @api.get("/auth/keys", action=Action.OWN_ACCOUNT)
    def list_keys(caller: Principal) -> ApiKeyList:
        """List your API keys."""
        if accounts is None:
            return ApiKeyList(keys=[])
        return keys.listed(reach=caller.reach(Action.OWN_ACCOUNT))

    @api.delete("/auth/keys/{id}", action=Action.OWN_ACCOUNT, errors=(ApiKeyNotFound, AuthIsOff))
    def delete_key(id: UUID, caller: Principal, client: Sender) -> ApiKeyView:
        """Delete one of your API keys, which ends it; the answer is the key as it was."""
        if accounts is None:
            raise AuthIsOff
        return keys.delete(id, _by(caller, client), reach=caller.reach(Action.OWN_ACCOUNT))

    @api.post("/users/{id}/disable", action=Action.MANAGE_USERS, errors=(UserNotFound, LastAdministrator))
    def disable_user(id: UUID, caller: Principal, client: Sender) -> AccountView:
        """End all that lets somebody in: sessions, access tokens, and API keys until they are enabled."""
        return administration.disable(id, _by(caller, client))

    @api.post("/users/{id}/enable", action=Action.MANAGE_USERS, errors=(UserNotFound,))
    def enable_user(id: UUID, caller: Principal, client: Sender) -> AccountView:
        """Let somebody log in again."""
        return administration.enable(id, _by(caller, client))

    @api.get("/users/{id}/account", action=Action.MANAGE_USERS, errors=(UserNotFound,))
    def show_account(id: UUID) -> WholeAccountView:
        """Show by what somebody may log in."""
        return administration.account(id)

    @api.get("/users/{id}/keys", action=Action.MANAGE_USERS, errors=(UserNotFound,))
    def list_user_keys(id: UUID, caller: Principal) -> ApiKeyList:
        """List somebody's API keys."""
        users.get(id, reach=caller.reach(Action.MANAGE_USERS))
        return keys.listed(reach=Reach.own(id))

    @api.delete("/users/{id}/keys/{key_id}", action=Action.MANAGE_USERS, errors=(ApiKeyNotFound,))
    def delete_user_key(id: UUID, key_id: UUID, caller: Principal, client: Sender) -> ApiKeyView:
        """Delete one of somebody's API keys, which ends it; the answer is the key as it was."""
        return keys.delete(key_id, _by(caller, client), reach=Reach.own(id))

    @api.get("/users/{id}/sessions", action=Action.MANAGE_USERS, errors=(UserNotFound,))
    def list_user_sessions(id: UUID, caller: Principal) -> SessionList:
        """List somebody's sessions."""
        users.get(id, reach=caller.reach(Action.MANAGE_USERS))
        return SessionList(sessions=[]) if accounts is None else accounts.listed(caller, reach=Reach.own(id))

    @api.delete("/users/{id}/sessions", action=Action.MANAGE_USERS, errors=(UserNotFound,))
    def end_user_sessions(id: UUID, caller: Principal, client: Sender) -> Ended:
        """End all of somebody's sessions, and the access tokens that their API keys were turned into."""
        return administration.end_sessions(id, _by(caller, client))

    @api.post("/users/{id}/link", action=Action.MANAGE_USERS, status=201, errors=(UserNotFound, AuthIsOff))
    def create_link(id: UUID, body: LinkCreate, caller: Principal, client: Sender) -> Answer[LinkView]:
        """Make a link for somebody, to hand it over, or send it by mail. An invitation is good for three days, the
        others for an hour."""
        made = opened().make(id, body.purpose, _by(caller, client), mail=body.mail)
        return Answer(made, headers=_NOT_STORED)

    @api.post("/auth/forgot", action=Action.PUBLIC, status=202, errors=(TooManyAttempts, AuthIsOff), body_limit=_BODY)
    def forget_password(body: Forgot, client: Sender) -> Accepted:
        """Ask for a link that sets a new password. The answer is the same whether anybody has this address."""
        return opened().forgot(body.email, client.address)

    @api.post("/auth/reset", action=Action.PUBLIC, errors=(TooManyPasswords, AuthIsOff), body_limit=_BODY)
    def reset_password(body: Reset, client: Sender) -> Ended:
        """Set a password by a link. It ends all sessions, access tokens and other links."""
        return opened().reset(body.token, body.password, client.address)

    @api.post(
        "/auth/email",
        action=Action.OWN_ACCOUNT,
        status=202,
        errors=(LoginNotFresh, InvalidCredential, TooManyAttempts, AuthIsOff),
        body_limit=_BODY,
    )
    def ask_for_email(body: OtherEmail, caller: Principal) -> Accepted:
        """Ask for another address, within five minutes of a login. It is yours once a link has proven it."""
        links = opened()
        caller.reach(Action.OWN_ACCOUNT)
        return links.ask_for_address(body.email, caller)

    @api.post("/auth/email/confirm", action=Action.PUBLIC, errors=(EmailTaken, AuthIsOff), body_limit=_BODY)
    def confirm_email(body: Confirm, client: Sender) -> ConfirmedView:
        """Prove an address by a link. It ends access tokens and other links: refresh yours."""
        return opened().confirm_address(body.token, client.address)

    @api.get("/audit", action=Action.READ_SYSTEM)
    def list_audit(query: AuditQuery) -> AuditPage:
        """List who did what to whose account, the newest first."""
        return audit.page(query)

    return api


def _by(caller: Principal, client: Sender) -> By:
    return By(caller.user_id, client.address)
