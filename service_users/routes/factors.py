"""The routes of second factors: parse, call, answer."""

from __future__ import annotations

from uuid import UUID

from service_users.accounts.changes import By
from service_users.accounts.factors import Factors
from service_users.accounts.schemas import (
    ConfirmedFactorView,
    FactorCode,
    FactorCreate,
    FactorList,
    FactorsRemoved,
    FactorView,
    NewFactorView,
)
from service_users.errors import (
    AuthIsOff,
    FactorNotFound,
    InvalidCredential,
    LoginNotFresh,
    TooManyFactors,
    UserNotFound,
)
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web.routes import Answer, Routes, Sender

_BODY = 4096
_NOT_STORED = {"Cache-Control": "no-store"}


def factor_routes(factors: Factors | None) -> Routes:
    """Declare the operations; without `factors` nobody logs in."""
    api = Routes("factors")

    def opened() -> Factors:
        if factors is None:
            raise AuthIsOff
        return factors

    @api.get("/auth/factors", action=Action.OWN_ACCOUNT)
    def list_factors(caller: Principal) -> FactorList:
        """List your second factors."""
        if factors is None:
            return FactorList(factors=[])
        return factors.listed(reach=caller.reach(Action.OWN_ACCOUNT))

    @api.post(
        "/auth/factors",
        action=Action.OWN_ACCOUNT,
        status=201,
        errors=(TooManyFactors, LoginNotFresh, InvalidCredential, AuthIsOff),
        body_limit=_BODY,
    )
    def create_factor(body: FactorCreate, caller: Principal) -> Answer[NewFactorView]:
        """Begin to set up a second factor, within five minutes of a login. It counts once you confirm it."""
        return Answer(opened().enrol(body, caller, reach=caller.reach(Action.OWN_ACCOUNT)), headers=_NOT_STORED)

    @api.post(
        "/auth/factors/{id}/confirm",
        action=Action.OWN_ACCOUNT,
        errors=(FactorNotFound, InvalidCredential, AuthIsOff),
        body_limit=_BODY,
    )
    def confirm_factor(id: UUID, body: FactorCode, caller: Principal, client: Sender) -> Answer[ConfirmedFactorView]:
        """Confirm a second factor by a code of its app. Your other sessions and earlier access tokens end: refresh
        yours."""
        by = By(caller.user_id, client.address)
        confirmed = opened().confirm(id, body.code, caller, by, reach=caller.reach(Action.OWN_ACCOUNT))
        return Answer(confirmed, headers=_NOT_STORED)

    @api.delete(
        "/auth/factors/{id}",
        action=Action.OWN_ACCOUNT,
        errors=(FactorNotFound, LoginNotFresh, InvalidCredential, AuthIsOff),
    )
    def delete_factor(id: UUID, caller: Principal, client: Sender) -> FactorView:
        """Remove one of your second factors, within five minutes of a login."""
        by = By(caller.user_id, client.address)
        return opened().remove(id, caller, by, reach=caller.reach(Action.OWN_ACCOUNT))

    @api.delete("/users/{id}/factors", action=Action.MANAGE_USERS, errors=(UserNotFound, AuthIsOff))
    def delete_user_factors(id: UUID, caller: Principal, client: Sender) -> FactorsRemoved:
        """Remove all second factors of somebody who has lost them."""
        return opened().remove_all(id, By(caller.user_id, client.address))

    return api
