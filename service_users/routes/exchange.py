"""The routes that the gateway alone may ask, by its own token."""

from __future__ import annotations

from service_users.accounts.audit import Audit
from service_users.accounts.audit_schemas import AppendedView, GatewayReport
from service_users.accounts.exchange import CredentialExchange
from service_users.accounts.schemas import Credential, ExchangedView, RevocationsView
from service_users.errors import AuthIsOff, InvalidCredential
from servicekit.web.routes import Routes, bearer_guard
from servicekit.wire.errors import Forbidden

_BODY, _AUDIT = 4096, 65_536


def exchange_routes(
    exchange: CredentialExchange | None, token: str | None, acting: CredentialExchange | None, audit: Audit
) -> Routes:
    """Declare them; without `exchange` nobody logs in, and without `acting` nobody acts as somebody else."""
    api = Routes("internal", documented=False)
    guard = bearer_guard(
        token, name="gateway's", closed="This is for the gateway: GATEWAY_TOKEN is not set.", puts_off=False
    )

    def opened() -> CredentialExchange:
        if exchange is None:
            raise AuthIsOff
        return exchange

    @api.post("/internal/exchange", errors=(InvalidCredential, AuthIsOff, Forbidden), body_limit=_BODY, guard=guard)
    def exchange_credential(body: Credential) -> ExchangedView:
        """Give the access token that stands for an API key, a browser's cookie or, where nobody logs in, a user."""
        if body.kind == "act_as":
            if acting is None:
                raise Forbidden("Nobody acts as somebody else here.")
            return acting.user(body.credential)
        return opened().key(body.credential) if body.kind == "key" else opened().cookie(body.credential)

    @api.get("/internal/revocations", errors=(AuthIsOff,), guard=guard)
    def list_revocations() -> RevocationsView:
        """Tell which access tokens are refused before they expire."""
        return opened().revocations()

    @api.post("/internal/audit", body_limit=_AUDIT, guard=guard)
    def append_audit(body: GatewayReport) -> AppendedView:
        """Write into the audit who was refused what, and who set circuits."""
        return audit.append(body)

    return api
