"""What the gateway asks: access tokens for what programs and browsers show, and which tokens to refuse."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import bindparam, or_, select, update

from service_users.accounts import changes, sessions
from service_users.accounts.schemas import ExchangedView, RevocationsView
from service_users.errors import InvalidCredential
from service_users.tables import ApiKey, Revocation, Session, User
from servicekit.database.engine import Database
from servicekit.database.statement import Statement
from servicekit.identity.api_keys import api_key_hash
from servicekit.identity.tokens import LIFETIME
from servicekit.process.clock import Clock, utc_now

if TYPE_CHECKING:
    from service_users.accounts.signing import SigningKeys

#: How often the use of a key is noted.
_NOTED = timedelta(minutes=1)
_OF_USER: tuple[Any, ...] = (User.id.label("user_id"), User.roles, User.auth_epoch, User.must_change_password)
_BY_COOKIE = Statement(
    select(Session.id, Session.methods, *_OF_USER)
    .join(User, User.id == Session.user_id)
    .where(Session.cookie_hash == bindparam("hash"), Session.expires_at > bindparam("now"), User.disabled_at.is_(None))
)
_BY_KEY = Statement(
    select(ApiKey.id, ApiKey.scopes, ApiKey.last_used_at, *_OF_USER)
    .join(User, User.id == ApiKey.user_id)
    .where(
        ApiKey.hash == bindparam("hash"),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > bindparam("now")),
        User.disabled_at.is_(None),
    )
)
_BY_ID = Statement(select(User.id, *_OF_USER).where(User.id == bindparam("id"), User.disabled_at.is_(None)))
_REVOKED_COLUMNS: tuple[Any, ...] = (Revocation.kind, Revocation.subject, Revocation.least_epoch)
_REVOKED = Statement(select(*_REVOKED_COLUMNS).where(Revocation.revoked_at > bindparam("since")))


class CredentialExchange:
    """The use cases; thread-safe."""

    def __init__(self, database: Database, keys: Callable[[], SigningKeys], *, clock: Clock = utc_now) -> None:
        self._database = database
        self._keys = keys
        self._clock = clock

    def cookie(self, cookie: str) -> ExchangedView:
        """An access token for the session of a browser. Raises `InvalidCredential`."""
        values = {"hash": sessions.cookie_hash(cookie), "now": self._clock()}
        return self._made(self._database.rows(_BY_COOKIE, values))

    def key(self, key: str) -> ExchangedView:
        """An access token for an API key, with the roles that its owner has now. Raises `InvalidCredential`."""
        now = self._clock()
        found = self._database.rows(_BY_KEY, {"hash": api_key_hash(key), "now": now})
        made = self._made(found)
        if found[0].last_used_at is None or found[0].last_used_at <= now - _NOTED:
            self._note(found[0].id, now)
        return made

    def user(self, user_id: str) -> ExchangedView:
        """An access token for a user, who has shown nothing; as session it has the user. Raises `InvalidCredential`."""
        try:
            return self._made(self._database.rows(_BY_ID, {"id": UUID(user_id)}))
        except ValueError:
            raise InvalidCredential from None

    def revocations(self) -> RevocationsView:
        """All that matter."""
        since = self._clock() - timedelta(seconds=changes.KEPT)
        rows = self._database.rows(_REVOKED, {"since": since})
        return RevocationsView(
            sessions=[row.subject for row in rows if row.kind == "session"],
            keys=[row.subject for row in rows if row.kind == "key"],
            users={str(row.subject): row.least_epoch for row in rows if row.kind == "user"},
        )

    def _made(self, rows: list[Any]) -> ExchangedView:
        if not rows:
            raise InvalidCredential
        row = rows[0]
        issuer = self._keys().issuer()
        token = issuer.issue(
            row.user_id,
            row.roles,
            session_id=row.id,
            epoch=row.auth_epoch,
            methods=getattr(row, "methods", ()),
            scopes=getattr(row, "scopes", None),
            must_change_password=row.must_change_password,
        )
        return ExchangedView(access_token=token, expires_in=LIFETIME)

    def _note(self, key_id: Any, now: datetime) -> None:
        """Whoever else notes it at the same time may have been first."""
        old = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at <= now - _NOTED)
        with self._database.transaction() as transaction:
            transaction.execute(update(ApiKey).where(ApiKey.id == key_id, old).values(last_used_at=now))
