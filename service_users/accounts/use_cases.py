"""The use cases of accounts: to log in, to stay in, and to leave."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session as Transaction

from service_users.accounts import changes, factors, sessions, throttles
from service_users.accounts.changes import By
from service_users.accounts.factors import Factors
from service_users.accounts.password_rules import weakness
from service_users.accounts.passwords import Passwords
from service_users.accounts.schemas import Ended, Login, PasswordChange, SessionList, SessionView, TokensView
from service_users.accounts.sessions import DeviceTokens, PendingLogin, PendingLogins, RefreshToken, RefreshTokens
from service_users.accounts.throttles import Throttles
from service_users.auth_key import AuthKey
from service_users.errors import InvalidCredential, SessionNotFound, TooManyPasswords
from service_users.tables import OneTimeToken, User
from servicekit.database.engine import Database
from servicekit.database.statement import Statement
from servicekit.identity.principal import Principal
from servicekit.identity.reach import Reach
from servicekit.identity.tokens import LIFETIME
from servicekit.process.clock import Clock, utc_now
from servicekit.process.ids import new_id
from servicekit.web.routes import Sender
from servicekit.wire.caseless import comparable
from servicekit.wire.errors import DeadlineExceeded, Invalid

if TYPE_CHECKING:
    from service_users.accounts.signing import SigningKeys

_COLUMNS: tuple[Any, ...] = (User.id, User.email, User.email_key, User.name, User.password_hash, User.disabled_at)
_BY_ADDRESS = Statement(select(*_COLUMNS).where(User.email_key == bindparam("email_key")))
_BY_ID = Statement(select(*_COLUMNS).where(User.id == bindparam("id")))

_ALL = Reach.all()
_NO_TOKENS: Any = dict.fromkeys(("access_token", "expires_in", "refresh_token", "device_token", "pending_token"))


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A new session, or a pending login: what its client gets, and, for a browser, as cookies."""

    view: TokensView
    cookie: str | None
    device_token: str | None


class Accounts:
    """The use cases; thread-safe."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        keys: SigningKeys,
        key: AuthKey,
        second_factors: Factors,
        *,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._keys = keys
        self._refresh_tokens = RefreshTokens(key)
        self._device_tokens = DeviceTokens(key)
        self._pending_logins = PendingLogins(key)
        self._factors = second_factors
        self._throttles = Throttles(database, clock=clock)
        self._clock = clock

    def log_in(self, login: Login, client: Sender, device_token: str | None = None) -> LoggedIn:
        """Begin a session, or for a second factor a pending login. Raises `InvalidCredential`, after as much work
        whatever is wrong; `TooManyAttempts`, before any, whether there is such an account or not; and as
        `Passwords.verify`."""
        email_key, now = comparable(login.email), self._clock()
        subject = throttles.of_network(email_key, client.address)
        shown = self._device_tokens.read(login.device_token or device_token, now)
        if shown is None:
            # Before any query, since most guesses end here.
            self._throttles.refuse_known(subject)
            self._passwords.require_place()
        user = next(iter(self._database.rows(_BY_ADDRESS, {"email_key": email_key})), None)
        known = None
        if user is not None and shown is not None and shown[1] == user.id:
            known = shown[0]
            subject = throttles.of_device(known, user.id)
        stored = None if user is None or user.disabled_at is not None else user.password_hash
        if not self._is_right(login.password, stored, subject, is_known=known is not None) or user is None:
            raise InvalidCredential
        device, wants_cookie = known or new_id(), login.session == "cookie"
        cookie = sessions.new_cookie() if wants_cookie else None
        session_id, methods = None, ["pwd"]
        with self._database.transaction() as transaction:
            present = changes.locked_if_any(transaction, user.id)
            if present is None or present.disabled_at is not None or present.password_hash != stored:
                raise InvalidCredential
            if not factors.asked_of(transaction, user.id):
                session_id = sessions.begin(transaction, user.id, now, client=client, cookie=cookie, methods=methods)
        self._throttles.settle(subject)
        if session_id is None:
            pending = PendingLogin(user.id, present.auth_epoch, device, known is not None, wants_cookie)
            waits = {**_NO_TOKENS, "pending_token": self._pending_logins.write(pending, now)}
            view = TokensView(**waits, session_id=None)
            return LoggedIn(view, None, None)
        return self._logged_in(session_id, user.id, present, device, cookie, methods, now)

    def log_in_by_code(self, text: str, code: str, client: Sender) -> LoggedIn:
        """Begin the session of a pending login. Raises `InvalidCredential`, and `TooManyAttempts`, before any work."""
        now = self._clock()
        pending = self._pending_logins.read(text, now)
        if pending is None:
            raise InvalidCredential
        subject = throttles.of_codes(pending.user_id, pending.device if pending.is_known else None)
        self._throttles.reserve(subject)
        cookie = sessions.new_cookie() if pending.wants_cookie else None
        user_id, methods = pending.user_id, ["pwd", "otp"]
        with self._database.transaction() as transaction:
            present = changes.locked_if_any(transaction, user_id)
            is_same = present is not None and present.disabled_at is None and present.auth_epoch == pending.epoch
            if not is_same or not self._factors.use(transaction, user_id, code, now):
                raise InvalidCredential
            session_id = sessions.begin(transaction, user_id, now, client=client, cookie=cookie, methods=methods)
        self._throttles.settle(subject)
        return self._logged_in(session_id, user_id, present, pending.device, cookie, methods, now)

    def begin_with_cookie(
        self, transaction: Transaction, user_id: UUID, client: Sender, methods: list[str], now: datetime
    ) -> LoggedIn:
        """Begin the session of a browser whose user has shown elsewhere who they are."""
        cookie = sessions.new_cookie()
        session_id = sessions.begin(transaction, user_id, now, client=client, cookie=cookie, methods=methods)
        device_token = self._device_tokens.write(new_id(), user_id, now)
        return LoggedIn(TokensView(**_NO_TOKENS, session_id=session_id), cookie, device_token)

    def _logged_in(
        self,
        session_id: UUID,
        user_id: UUID,
        user: Any,
        device: UUID,
        cookie: str | None,
        methods: list[str],
        now: datetime,
    ) -> LoggedIn:
        device_token = self._device_tokens.write(device, user_id, now)
        if cookie is None:
            view = self._tokens(RefreshToken(session_id, 0), now, user, user_id, methods, device_token)
        else:
            view = TokensView(**_NO_TOKENS, session_id=session_id)
        return LoggedIn(view, cookie, device_token)

    def refresh(self, text: str, client: Sender) -> TokensView:
        """Carry a session on. A token that was just used gives the same answer, for a client that lost it; one that
        was used before that was stolen, by the one or the other, and ends the session. Raises `InvalidCredential`."""
        token = self._refresh_tokens.read(text)
        if token is None:
            raise InvalidCredential
        now = self._clock()
        with self._database.transaction() as transaction:
            row = sessions.locked(transaction, token.session_id)
            if row is None:
                raise InvalidCredential
            if token.counter == row.counter and _is_live(row, now):
                sessions.count_on(transaction, token.session_id, row.counter + 1, now)
                refreshed_at = now
            elif token.counter + 1 == row.counter and _is_live(row, now) and _is_forgiven(row, now):
                refreshed_at = row.refreshed_at
            else:
                why = "session.token_reused" if _is_live(row, now) else "session.expired"
                self._end(transaction, token.session_id, why, By(row.user_id, client.address), now)
                row = None
        if row is None:
            raise InvalidCredential
        successor = RefreshToken(token.session_id, token.counter + 1)
        return self._tokens(successor, refreshed_at, row, row.user_id, row.methods)

    def log_out(self, caller: Principal, client: Sender, *, reach: Reach) -> Ended:
        """End the session that the caller came by; none, if that was an API key."""
        assert caller.session_id is not None
        try:
            self.end(caller.session_id, caller, client, reach=reach)
        except SessionNotFound:
            return Ended(sessions=0)
        return Ended(sessions=1)

    def log_out_everywhere(self, caller: Principal, client: Sender) -> Ended:
        """End all sessions of the caller, and every access token, also those of API keys, which go on with the next."""
        return self._end_all(caller, client)

    def end_others(self, caller: Principal, client: Sender, *, reach: Reach) -> Ended:
        """The same, but the session that the caller came by goes on, from its next refresh."""
        assert reach.owner == caller.user_id
        return self._end_all(caller, client, but=caller.session_id)

    def listed(self, caller: Principal, *, reach: Reach) -> SessionList:
        """The sessions in reach."""
        rows = sessions.listed(self._database, self._clock(), reach=reach)
        return SessionList(
            sessions=[
                SessionView(
                    id=row.id,
                    current=row.id == caller.session_id,
                    kind="cookie" if row.has_cookie else "token",
                    address=row.address,
                    agent=row.agent,
                    created_at=row.created_at,
                    refreshed_at=row.refreshed_at,
                    expires_at=row.expires_at,
                )
                for row in rows
            ]
        )

    def end(self, session_id: UUID, caller: Principal, client: Sender, *, reach: Reach) -> Ended:
        """End one of the sessions in reach. Raises `SessionNotFound`."""
        by = By(caller.user_id, client.address)
        with self._database.transaction() as transaction:
            if not self._end(transaction, session_id, "session.ended", by, self._clock(), reach=reach):
                raise SessionNotFound
        return Ended(sessions=1)

    def change_password(self, change: PasswordChange, caller: Principal, client: Sender) -> Ended:
        """Set another password and end the caller's other sessions; theirs goes on, from its next refresh.

        Raises `Invalid` for a wrong or a weak one, `TooManyAttempts`, and as `Passwords.hash`.
        """
        user = next(iter(self._database.rows(_BY_ID, {"id": caller.user_id})), None)
        if user is None or user.disabled_at is not None:
            raise InvalidCredential
        if (wrong := weakness(change.new, (user.email, user.name))) is not None:
            raise Invalid.field("new", wrong)
        if change.new == change.current:
            raise Invalid.field("new", "is the present one")
        subject = throttles.of_network(user.email_key, client.address)
        if not self._is_right(change.current, user.password_hash, subject, is_known=True):
            raise Invalid.field("current", "is not the present password")
        password_hash = self._passwords.hash(change.new)
        now = self._clock()
        with self._database.transaction() as transaction:
            present = changes.locked_if_any(transaction, user.id)
            if present is None or present.disabled_at is not None or present.password_hash != user.password_hash:
                raise InvalidCredential
            changes.raise_epoch(transaction, user.id, now, password_hash=password_hash, must_change_password=False)
            ended = sessions.end_all(transaction, user.id, but=caller.session_id)
            # A link that was mailed before must not set yet another one.
            transaction.execute(
                delete(OneTimeToken).where(OneTimeToken.user_id == user.id, OneTimeToken.purpose == "reset")
            )
            changes.record(transaction, "user.password_changed", By(user.id, client.address), user.id, now)
        self._throttles.settle(subject)
        return Ended(sessions=ended)

    def _is_right(self, password: str, stored: str | None, subject: bytes, *, is_known: bool) -> bool:
        """Whether a password is the stored one; counted as a failure until it is settled."""
        counted = False

        def count() -> None:
            nonlocal counted
            self._throttles.reserve(subject)
            counted = True

        try:
            return self._passwords.verify(stored, password, is_known=is_known, before=count)
        except (TooManyPasswords, DeadlineExceeded):
            if counted:
                self._throttles.give_back(subject)
            raise

    def _tokens(
        self,
        token: RefreshToken,
        at: datetime,
        user: Any,
        user_id: UUID,
        methods: list[str],
        device_token: str | None = None,
    ) -> TokensView:
        """The tokens that a session goes on with, to the letter the same each time."""
        refresh_token = self._refresh_tokens.write(token)
        digest = hashlib.sha256(refresh_token.encode()).digest()
        access_token = self._keys.issuer(at.timestamp).issue(
            user_id,
            user.roles,
            session_id=token.session_id,
            epoch=user.auth_epoch,
            methods=methods,
            token_id=UUID(bytes=digest[:16], version=4),
            must_change_password=user.must_change_password,
        )
        return TokensView.unchecked(
            session_id=token.session_id,
            token_type="Bearer",
            access_token=access_token,
            expires_in=LIFETIME,
            refresh_token=refresh_token,
            device_token=device_token,
            pending_token=None,
        )

    def _end_all(self, caller: Principal, client: Sender, *, but: UUID | None = None) -> Ended:
        assert caller.user_id is not None
        now = self._clock()
        with self._database.transaction() as transaction:
            if changes.locked_if_any(transaction, caller.user_id) is None:
                raise InvalidCredential
            ended = sessions.end_all(transaction, caller.user_id, but=but)
            changes.raise_epoch(transaction, caller.user_id, now)
            changes.record(transaction, "sessions.ended", By(caller.user_id, client.address), caller.user_id, now)
        return Ended(sessions=ended)

    def _end(
        self,
        transaction: Transaction,
        session_id: UUID,
        action: str,
        by: By,
        now: datetime,
        *,
        reach: Reach = _ALL,
    ) -> bool:
        if not sessions.end(transaction, session_id, reach=reach):
            return False
        changes.revoke(transaction, "session", session_id, now)
        assert by.actor is not None
        changes.record(transaction, action, by, by.actor, now, {"session": str(session_id)})
        return True


def _is_live(row: Any, now: datetime) -> bool:
    return row.expires_at > now and row.disabled_at is None and row.cookie_hash is None


def _is_forgiven(row: Any, now: datetime) -> bool:
    refreshed_at: datetime = row.refreshed_at
    return now - refreshed_at <= sessions.FORGIVING
