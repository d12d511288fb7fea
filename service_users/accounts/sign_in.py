"""The use cases of signing in at a provider (OpenID Connect): to log in, to link an identity, and to remove the link.

What a sign-in is known by (state, nonce, and the verifier of PKCE) derives from a cookie and from a key outside the
database: it is good in that browser alone, and only once, as its row says. An e-mail address links nobody.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session as Transaction

from service_users.accounts import changes, sessions, throttles
from service_users.accounts.api_keys import require_session
from service_users.accounts.changes import By
from service_users.accounts.links import Links
from service_users.accounts.provider import Provider, Secrets
from service_users.accounts.sign_in_schemas import LONGEST_PAGE, IdentityList, IdentityView, ProviderAnswer
from service_users.accounts.throttles import Throttles
from service_users.accounts.use_cases import Accounts, LoggedIn
from service_users.auth_key import AuthKey
from service_users.errors import IdentityNotFound, IdentityTaken, InvalidCredential, SignInRefused, UnknownIdentity
from service_users.tables import IdentityRow, Session, SignIn, User
from servicekit.database.engine import Database
from servicekit.database.statement import Statement
from servicekit.identity.principal import Principal
from servicekit.identity.reach import Reach
from servicekit.process.clock import Clock, utc_now
from servicekit.process.ids import new_id
from servicekit.web.routes import Sender
from servicekit.wire.errors import Invalid

#: How long somebody may take at the provider.
_LASTS = timedelta(minutes=10)
#: How a session has begun; RFC 8176 has no word for it.
_METHODS = ["fed"]
#: Pages of ours: segments that no browser reads as another host, whatever it makes of backslashes and escapes.
_PAGE = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@-]+)*/?([?#][A-Za-z0-9._~!$&'()*+,;=:@/?#%-]*)?")
_SHOWN: tuple[Any, ...] = tuple(getattr(IdentityRow, name) for name in IdentityView.model_fields)
_LIST = Statement(select(*_SHOWN).where(IdentityRow.user_id == bindparam("reach")).order_by(IdentityRow.created_at))


@dataclass(frozen=True, slots=True)
class Begun:
    """Where a browser goes to sign in, and the cookie by which it is known when it comes back."""

    address: str
    cookie: str
    #: How long it may take, in seconds.
    expires_in: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The page to show, and the session that began; None if an identity was linked."""

    next: str
    logged_in: LoggedIn | None


class SignIns:
    """The use cases; thread-safe."""

    def __init__(
        self,
        database: Database,
        provider: Provider,
        accounts: Accounts,
        links: Links,
        key: AuthKey,
        *,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._provider = provider
        self._accounts = accounts
        self._links = links
        self._key = key.derived("sign-ins")
        self._throttles = Throttles(database, clock=clock)
        self._clock = clock

    def begin(self, next: str | None, invitation: str | None) -> Begun:
        """Begin a login, or by the token of an invitation the first one. Raises `Invalid` for a token that is not
        valid, and `ProviderUnavailable`."""
        if invitation is not None:
            with self._database.transaction() as transaction:
                self._links.invited(transaction, invitation)
        return self._begun(next, invitation)

    def begin_link(self, next: str | None, caller: Principal, *, reach: Reach) -> Begun:
        """Begin to link an identity. Raises `Forbidden` for whoever came by a key, `LoginNotFresh`, and
        `ProviderUnavailable`."""
        require_session(caller)
        with self._database.transaction() as transaction:
            sessions.require_fresh(transaction, caller, self._clock())
        return self._begun(next, None, user_id=reach.owner, session_id=caller.session_id)

    def finish(self, answer: ProviderAnswer, cookie: str | None, client: Sender) -> Finished:
        """End a sign-in: log in, or link the identity.

        Raises `Invalid` for one that this browser did not begin, `SignInRefused`, `UnknownIdentity`, `IdentityTaken`,
        `InvalidCredential` if the session that began it is over, `TooManyAttempts`, and `ProviderUnavailable`.
        """
        foreign = Invalid.field("state", "was begun in another browser, was used, or has expired: begin again")
        if cookie is None or answer.state is None:
            raise foreign
        known_by = self._secrets(cookie)
        if not hmac.compare_digest(known_by.state.encode(), answer.state.encode()):
            raise foreign
        now = self._clock()
        with self._database.transaction() as transaction:
            mine = (SignIn.browser == sessions.cookie_hash(cookie), SignIn.expires_at > now)
            begun = transaction.execute(
                delete(SignIn).where(*mine).returning(SignIn.user_id, SignIn.session_id, SignIn.next)
            ).one_or_none()
        if begun is None:
            raise foreign
        if answer.iss is not None and answer.iss != self._provider.issuer:
            # RFC 9207: the answer of another provider.
            raise Invalid.field("iss", "is not the provider at which this was begun")
        if answer.code is None:
            raise SignInRefused
        subject = self._subject(answer.code, known_by, client)
        invitation = cookie.partition(".")[2]
        with self._database.transaction() as transaction:
            if begun.user_id is not None:
                self._link_in_session(transaction, begun, subject, client, now)
                return Finished(begun.next, None)
            user_id = (
                self._take_up(transaction, invitation, subject, client, now)
                if invitation
                else self._linked(transaction, subject, now)
            )
            logged_in = self._accounts.begin_with_cookie(transaction, user_id, client, _METHODS, now)
        return Finished(begun.next, logged_in)

    def listed(self, *, reach: Reach) -> IdentityList:
        """The identities of the one in reach."""
        return IdentityList.unchecked(identities=self._database.rows(_LIST, {"reach": reach.owner}))

    def remove(self, identity_id: UUID, caller: Principal, by: By, *, reach: Reach) -> IdentityView:
        """Stop letting an identity in. Raises `IdentityNotFound`, `Forbidden` for whoever came by a key, and
        `LoginNotFresh`."""
        require_session(caller)
        now = self._clock()
        with self._database.transaction() as transaction:
            sessions.require_fresh(transaction, caller, now)
            mine = (IdentityRow.id == identity_id, IdentityRow.user_id == reach.owner)
            gone = transaction.execute(
                delete(IdentityRow).where(*mine).returning(*_SHOWN, IdentityRow.user_id)
            ).one_or_none()
            if gone is None:
                raise IdentityNotFound
            changes.record(transaction, "identity.removed", by, gone.user_id, now, {"identity": str(identity_id)})
        return IdentityView.of(gone)

    def _begun(
        self, next: str | None, invitation: str | None, *, user_id: UUID | None = None, session_id: UUID | None = None
    ) -> Begun:
        cookie = sessions.new_cookie() + (f".{invitation}" if invitation else "")
        address = self._provider.address(self._secrets(cookie))
        now = self._clock()
        row = {"user_id": user_id, "session_id": session_id, "next": own_page(next), "expires_at": now + _LASTS}
        with self._database.transaction() as transaction:
            transaction.execute(delete(SignIn).where(SignIn.expires_at <= now))
            transaction.execute(insert(SignIn).values(browser=sessions.cookie_hash(cookie), **row))
        return Begun(address, cookie, int(_LASTS.total_seconds()))

    def _secrets(self, cookie: str) -> Secrets:
        def derived(purpose: str) -> str:
            digest = hmac.digest(self._key, f"{purpose} {cookie}".encode("utf-8", "surrogateescape"), hashlib.sha256)
            return _base64(digest)

        verifier = derived("verifier")
        # RFC 7636, section 4.2
        challenge = _base64(hashlib.sha256(verifier.encode("ascii")).digest())
        return Secrets(derived("state"), derived("nonce"), verifier, challenge)

    def _subject(self, code: str, known_by: Secrets, client: Sender) -> str:
        """Who has signed in; invalid codes are counted as wrong passwords are."""
        subject = throttles.of_network("sign-in", client.address)
        self._throttles.reserve(subject)
        try:
            found = self._provider.subject(code, known_by)
        except SignInRefused:
            raise
        except BaseException:
            self._throttles.give_back(subject)
            raise
        self._throttles.settle(subject)
        return found

    def _linked(self, transaction: Transaction, subject: str, now: datetime) -> UUID:
        """Whom an identity lets in."""
        ours = (IdentityRow.issuer == self._provider.issuer, IdentityRow.subject == subject)
        found = (
            select(User.id).join(IdentityRow, IdentityRow.user_id == User.id).where(*ours, User.disabled_at.is_(None))
        )
        user_id = transaction.execute(found.with_for_update(of=User)).scalar_one_or_none()
        if user_id is None:
            raise UnknownIdentity
        transaction.execute(update(IdentityRow).where(*ours).values(last_used_at=now))
        return user_id

    def _link_in_session(
        self, transaction: Transaction, begun: Any, subject: str, client: Sender, now: datetime
    ) -> None:
        user = changes.locked_if_any(transaction, begun.user_id)
        mine = (Session.id == begun.session_id, Session.user_id == begun.user_id)
        goes_on = transaction.execute(select(Session.id).where(*mine)).first() is not None
        if user is None or user.disabled_at is not None or not goes_on:
            raise InvalidCredential
        self._link(transaction, begun.user_id, subject, client, now)

    def _take_up(self, transaction: Transaction, invitation: str, subject: str, client: Sender, now: datetime) -> UUID:
        user_id = self._links.take_up(transaction, invitation, client.address)
        self._link(transaction, user_id, subject, client, now)
        return user_id

    def _link(self, transaction: Transaction, user_id: UUID, subject: str, client: Sender, now: datetime) -> None:
        row = {"id": new_id(), "user_id": user_id, "issuer": self._provider.issuer, "subject": subject}
        adding = insert(IdentityRow).values(**row, created_at=now).on_conflict_do_nothing().returning(IdentityRow.id)
        identity_id = transaction.execute(adding).scalar_one_or_none()
        if identity_id is None:
            raise IdentityTaken
        changes.record(
            transaction, "identity.linked", By(user_id, client.address), user_id, now, {"identity": str(identity_id)}
        )


def own_page(text: str | None) -> str:
    """The page, if it is plainly one of ours; else the first one."""
    if not text or len(text) > LONGEST_PAGE or not text.startswith("/") or not _PAGE.fullmatch(text):
        return "/"
    return text


def _base64(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")
