"""Sessions: one row for each login, until it ends; and the tokens that carry one on."""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session as Transaction

from service_users.accounts import changes
from service_users.accounts.changes import By
from service_users.auth_key import AuthKey, Signer
from service_users.errors import InvalidCredential, LoginNotFresh
from service_users.tables import Session, User
from servicekit.database.engine import Database
from servicekit.database.statement import Statement, within_reach
from servicekit.identity.principal import Principal
from servicekit.identity.reach import Reach
from servicekit.process.ids import new_id
from servicekit.web.routes import Sender

#: How long a session lasts, and how long a device is known.
LASTS, KNOWN = timedelta(days=30), timedelta(days=180)
#: How long after a login one may change what the login depends on, and how long a login may wait for its code.
FRESH = timedelta(minutes=5)
#: How long after a refresh the previous token gives the same answer again, for a client that lost it.
FORGIVING = timedelta(seconds=10)
#: Sessions of a user; the next login ends the oldest.
MOST = 100
_AGENT = 200

_SHOWN: tuple[Any, ...] = (
    Session.id,
    Session.cookie_hash.is_not(None).label("has_cookie"),
    Session.address,
    Session.agent,
    Session.created_at,
    Session.refreshed_at,
    Session.expires_at,
)
_LIST = Statement(
    select(*_SHOWN)
    .where(within_reach(Session.user_id), Session.expires_at > bindparam("now"))
    .order_by(Session.created_at.desc(), Session.id.desc())
    .limit(MOST)
)


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """Which session goes on with it, and how often that has been refreshed."""

    session_id: UUID
    counter: int


class RefreshTokens:
    """Refresh tokens, which no table holds: a session, a counter, and our signature on both."""

    _LAYOUT = struct.Struct("!16sI")

    def __init__(self, key: AuthKey) -> None:
        self._signer = Signer(key, "refresh tokens", "swr_")

    def write(self, token: RefreshToken) -> str:
        return self._signer.sign(self._LAYOUT.pack(token.session_id.bytes, token.counter))

    def read(self, text: str) -> RefreshToken | None:
        message = self._signer.read(text, self._LAYOUT.size)
        if message is None:
            return None
        session_id, counter = self._LAYOUT.unpack(message)
        return RefreshToken(UUID(bytes=session_id), counter)


class DeviceTokens:
    """By which a device is known on which a user has logged in. They open nothing."""

    _LAYOUT = struct.Struct("!16s16sQ")

    def __init__(self, key: AuthKey) -> None:
        self._signer = Signer(key, "device tokens", "swd_")

    def write(self, device: UUID, user_id: UUID, now: datetime) -> str:
        return self._signer.sign(self._LAYOUT.pack(device.bytes, user_id.bytes, int(now.timestamp())))

    def read(self, text: str | None, now: datetime) -> tuple[UUID, UUID] | None:
        """The device, and who has logged in on it."""
        message = None if text is None else self._signer.read(text, self._LAYOUT.size)
        if message is None:
            return None
        device, user, at = self._LAYOUT.unpack(message)
        is_known = now.timestamp() - at < KNOWN.total_seconds()
        return (UUID(bytes=device), UUID(bytes=user)) if is_known else None


def new_cookie() -> str:
    return secrets.token_urlsafe(32)


def cookie_hash(cookie: str) -> bytes:
    """As it stands in a row."""
    return hashlib.sha256(cookie.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True, slots=True)
class PendingLogin:
    """Who has shown a password and has yet to show a code."""

    user_id: UUID
    #: Of then: what has ended sessions since ends this, too.
    epoch: int
    device: UUID
    is_known: bool
    wants_cookie: bool


class PendingLogins:
    """Pending logins as tokens, which no table holds."""

    _LAYOUT = struct.Struct("!16sI16s??Q")

    def __init__(self, key: AuthKey) -> None:
        self._signer = Signer(key, "pending logins", "swp_")

    def write(self, login: PendingLogin, now: datetime) -> str:
        user, device = login.user_id.bytes, login.device.bytes
        flags = (login.is_known, login.wants_cookie)
        return self._signer.sign(self._LAYOUT.pack(user, login.epoch, device, *flags, int(now.timestamp())))

    def read(self, text: str, now: datetime) -> PendingLogin | None:
        message = self._signer.read(text, self._LAYOUT.size)
        if message is None:
            return None
        user, epoch, device, is_known, wants_cookie, at = self._LAYOUT.unpack(message)
        if now.timestamp() - at > FRESH.total_seconds():
            return None
        return PendingLogin(UUID(bytes=user), epoch, UUID(bytes=device), is_known, wants_cookie)


def listed(database: Database, now: datetime, *, reach: Reach) -> list[Any]:
    """The newest sessions, as rows of what is shown."""
    return database.rows(_LIST, {"now": now, "reach": reach.owner})


def begin(
    transaction: Transaction, user_id: UUID, now: datetime, *, client: Sender, cookie: str | None, methods: list[str]
) -> UUID:
    """Begin a session, and end the oldest of the user beyond MOST; returns its id. `methods` is as in RFC 8176."""
    session_id = new_id()
    row = {
        "id": session_id,
        "user_id": user_id,
        "cookie_hash": None if cookie is None else cookie_hash(cookie),
        "counter": 0,
        "methods": methods,
        "address": client.address,
        "agent": client.agent[:_AGENT],
        "created_at": now,
        "refreshed_at": now,
        "expires_at": now + LASTS,
    }
    transaction.execute(insert(Session).values(row))
    oldest = select(Session.id).where(Session.user_id == user_id).order_by(Session.created_at.desc(), Session.id.desc())
    for ended in _ended(transaction, Session.id.in_(oldest.offset(MOST))):
        changes.revoke(transaction, "session", ended, now)
    changes.record(transaction, "session.began", By(user_id, client.address), user_id, now)
    return session_id


def require_fresh(transaction: Transaction, caller: Principal, now: datetime) -> None:
    """Raises `LoginNotFresh` unless the caller has just logged in, and `InvalidCredential` if that session is over."""
    mine = (Session.id == caller.session_id, Session.user_id == caller.user_id)
    began_at = transaction.execute(select(Session.created_at).where(*mine)).scalar_one_or_none()
    if began_at is None:
        raise InvalidCredential
    if now - began_at > FRESH:
        raise LoginNotFresh


def locked(transaction: Transaction, session_id: UUID) -> Any:
    """The row of a session and what matters of its user, locked; None if there is none."""
    wanted = (
        Session.user_id, Session.counter, Session.methods, Session.refreshed_at, Session.expires_at,
        Session.cookie_hash, User.roles, User.auth_epoch, User.must_change_password, User.disabled_at,
    )  # fmt: skip
    found = select(*wanted).join(User, User.id == Session.user_id).where(Session.id == session_id)
    return transaction.execute(found.with_for_update(of=Session)).one_or_none()


def count_on(transaction: Transaction, session_id: UUID, counter: int, now: datetime) -> None:
    """Note a refresh."""
    transaction.execute(update(Session).where(Session.id == session_id).values(counter=counter, refreshed_at=now))


def end(transaction: Transaction, session_id: UUID, *, reach: Reach) -> bool:
    """End one session; whether there was one in reach."""
    whose = [] if reach.owner is None else [Session.user_id == reach.owner]
    return bool(_ended(transaction, Session.id == session_id, *whose))


def end_all(transaction: Transaction, user_id: UUID, *, but: UUID | None = None) -> int:
    """End those of a user, except one; returns how many."""
    others = [] if but is None else [Session.id != but]
    return len(_ended(transaction, Session.user_id == user_id, *others))


def _ended(transaction: Transaction, *where: Any) -> list[UUID]:
    deleted: Iterable[UUID] = transaction.execute(delete(Session).where(*where).returning(Session.id)).scalars()
    return list(deleted)
