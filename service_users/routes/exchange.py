"""The routes that the gateway alone may ask, by its own token."""

from __future__ import annotations

from service_users.accounts.exchange import Exchange
from service_users.accounts.schemas import Credential, ExchangedView, RevocationsView
from service_users.errors import AuthIsOff, InvalidCredential
from servicekit.web.routes import Routes, bearer_guard

_BODY = 4096


def exchange_routes(exchange: Exchange | None, token: str | None) -> Routes:
    """Declare them; without `exchange` nobody logs in."""
    api = Routes("internal", documented=False)
    guard = bearer_guard(
        token, name="gateway's", closed="This is for the gateway: GATEWAY_TOKEN is not set.", puts_off=False
    )

    def opened() -> Exchange:
        if exchange is None:
            raise AuthIsOff
        return exchange

    @api.post("/internal/exchange", errors=(InvalidCredential, AuthIsOff), body_limit=_BODY, guard=guard)
    def exchange_credential(body: Credential) -> ExchangedView:
        """Give the access token that stands for an API key or a browser's cookie."""
        return opened().key(body.credential) if body.kind == "key" else opened().cookie(body.credential)

    @api.get("/internal/revocations", errors=(AuthIsOff,), guard=guard)
    def list_revocations() -> RevocationsView:
        """Tell which access tokens are refused before they expire."""
        return opened().revocations()

    return api
