"""The composition root of the users service."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from flask import Flask, Response

from service_users.accounts.administration import Administration
from service_users.accounts.api_keys import ApiKeys
from service_users.accounts.audit import Audit, AuditPruning
from service_users.accounts.exchange import CredentialExchange
from service_users.accounts.factors import Factors
from service_users.accounts.links import Links
from service_users.accounts.passwords import Passwords
from service_users.accounts.use_cases import Accounts
from service_users.auth_key import AuthKey
from service_users.errors import EmailTaken
from service_users.routes.access import access_routes
from service_users.routes.accounts import account_routes
from service_users.routes.exchange import exchange_routes
from service_users.routes.factors import factor_routes
from service_users.routes.mails import mail_routes
from service_users.routes.people import people_routes
from service_users.routes.sign_in import sign_in_routes
from service_users.routes.users import user_routes
from service_users.settings import UsersSettings
from service_users.use_cases import Users
from servicekit.database.engine import LOCK_TIMEOUT_MS, Database
from servicekit.events.backlog import outbox_routes
from servicekit.events.inbox import Inbox, event_routes
from servicekit.identity.enforcement import KEYS_PATH, identify_with
from servicekit.web.app import make_app
from servicekit.wire.browsers import BrowserRules

if TYPE_CHECKING:
    from service_users.accounts.signing import SigningKeys

CONSTRAINTS = {"uq_users_email_key": EmailTaken}


def create_app(settings: UsersSettings) -> Flask:
    """Wire the service; no connection is opened before the first request."""
    database = Database(
        settings.users_database_url,
        application_name="service_users",
        pool_size=settings.connections,
        constraints=CONSTRAINTS,
        lock_timeout_ms=LOCK_TIMEOUT_MS,
    )
    # At most half of the threads, so that requests without a password still run.
    passwords = Passwords(places=max(1, settings.service_threads // 2))
    users = Users(database, passwords)
    audit = Audit(database)
    signing_keys = accounts = factors = links = exchange = acting = sign_ins = None
    provider = settings.provider()
    if (key := settings.key_of_accounts()) is not None:
        signing_keys = _signing_keys(database, key, settings.auth_issuer)
        if settings.auth == "required":
            factors = Factors(database, key)
            accounts = Accounts(database, passwords, signing_keys(), key, factors)
            links = Links(database, passwords, key, public_url=settings.public_url)
            exchange = CredentialExchange(database, signing_keys)
            if provider is not None:
                from service_users.accounts.provider import Provider
                from service_users.accounts.sign_in import SignIns

                waiting = max(1, settings.service_threads // 4)
                sign_ins = SignIns(database, Provider(provider, places=waiting), accounts, links, key)
        else:
            acting = CredentialExchange(database, signing_keys)
    app = make_app(
        "service_users",
        routes=[
            user_routes(users),
            account_routes(accounts, users),
            factor_routes(factors),
            sign_in_routes(sign_ins, None if provider is None else provider.name, login=accounts is not None),
            access_routes(ApiKeys(database), Administration(database), audit, accounts, links, users),
            exchange_routes(exchange, settings.gateways_token, acting, audit),
            people_routes(users, settings.token_for_people),
            mail_routes(links, settings.token_for_mail),
            event_routes(Inbox(database, {"membership.changed": users.membership_changed}), settings.token),
            outbox_routes("users", database),
        ],
        checks={"database": database.ping},
        browsers=BrowserRules(settings.allowed_hosts, settings.users_bind),
        identify=identify_with(settings),
        description="The people of the building sites.",
    )
    AuditPruning(database).start()
    if signing_keys is not None:
        _publish(app, signing_keys)
    return app


def _signing_keys(database: Database, key: AuthKey, issuer: str) -> Callable[[], SigningKeys]:
    """Makes the signing keys at first need, because they load cryptography."""

    @cache
    def made() -> SigningKeys:
        from service_users.accounts.signing import SigningKeys

        return SigningKeys(database, key, issuer=issuer)

    return made


def _publish(app: Flask, keys: Callable[[], SigningKeys]) -> None:
    """Show the key set, without an envelope, as every reader of such sets expects it."""

    def show_keys() -> Response:
        # Shorter than a key is published before it signs.
        fields = {"Cache-Control": "public, max-age=60"}
        return Response(keys().document(), 200, fields, mimetype="application/jwk-set+json")

    app.add_url_rule(
        KEYS_PATH, endpoint=KEYS_PATH, view_func=show_keys, methods=["GET"], provide_automatic_options=False
    )
