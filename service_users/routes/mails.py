"""The route by which the workers fetch the mail of accounts, by a token of its own."""

from __future__ import annotations

from service_users.accounts.access_schemas import MailView, MailWanted
from service_users.accounts.links import Links
from service_users.errors import AuthIsOff, MailNotFound
from servicekit.web.routes import Answer, Routes, bearer_guard

_BODY = 4096


def mail_routes(links: Links | None, token: str | None) -> Routes:
    """Declare it; without `links` nobody logs in."""
    api = Routes("internal", documented=False)
    guard = bearer_guard(token, name="mail", closed="This is for workers: MAIL_TOKEN is not set.", puts_off=False)

    @api.post("/internal/mail", errors=(MailNotFound, AuthIsOff), body_limit=_BODY, guard=guard)
    def fetch_mail(body: MailWanted) -> Answer[MailView]:
        """Give a message that was wanted, with its link, to be sent now."""
        if links is None:
            raise AuthIsOff
        return Answer(links.message(body.id), headers={"Cache-Control": "no-store"})

    return api
