"""The use cases of one-time tokens: a forgotten password, an invitation, another address.

The database holds that there is a link, never its text: that is derived, each time anew, from the row, from the user's
password and address, and from a key outside the database. So it dies when the password or the address changes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session as Transaction

from service_users import events
from service_users.accounts import changes, mails, sessions, throttles
from service_users.accounts.access_schemas import Accepted, ConfirmedView, LinkView, MailView
from service_users.accounts.api_keys import require_session
from service_users.accounts.changes import By
from service_users.accounts.password_rules import weakness
from service_users.accounts.passwords import Passwords
from service_users.accounts.schemas import Ended
from service_users.accounts.throttles import Throttles
from service_users.auth_key import AuthKey
from service_users.errors import MailNotFound
from service_users.schemas import UserView
from service_users.tables import OneTimeToken, User
from servicekit.database.engine import Database
from servicekit.events import outbox
from servicekit.identity.principal import Principal
from servicekit.process.clock import Clock, utc_now
from servicekit.process.ids import new_id
from servicekit.wire.caseless import comparable
from servicekit.wire.errors import Invalid

Purpose = Literal["reset", "invitation", "email"]

LASTS = {
    "reset": timedelta(hours=1),
    "invitation": timedelta(hours=72),
    "email": timedelta(hours=1),
    # No link, but a message to the previous address.
    "moved": timedelta(hours=72),
}
#: How soon somebody who asks again gets another mail: the first may be lost, and many are a nuisance.
_AGAIN = timedelta(minutes=5)
_PREFIX = "swl_"
_ID = 16

# Writes as much whether there is such a user or not.
_FORGOT = """
WITH touched AS (UPDATE throttles SET failures = failures WHERE subject = %(subject)s),
gone AS (DELETE FROM one_time_tokens WHERE expires_at <= %(now)s),
made AS (INSERT INTO one_time_tokens (id, user_id, purpose, created_at, expires_at)
SELECT %(id)s, id, 'reset', %(now)s, %(expires_at)s FROM users
WHERE email_key = %(email_key)s AND disabled_at IS NULL
  AND NOT EXISTS (SELECT FROM one_time_tokens
                  WHERE user_id = users.id AND purpose = 'reset' AND created_at > %(again_after)s)
RETURNING id)
"""


class Links:
    """The use cases; thread-safe."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        key: AuthKey,
        *,
        public_url: str | None = None,
        clock: Clock = utc_now,
    ) -> None:
        """`public_url` is where people reach the system; without it no mail is sent."""
        self._database = database
        self._passwords = passwords
        self._key = key.derived("one-time tokens")
        self._public_url = public_url
        self._throttles = Throttles(database, clock=clock)
        self._clock = clock

    def forgot(self, email: str, address: str) -> Accepted:
        """Note that somebody forgot a password, for the one who has this address; the same for one that nobody has.

        Raises `TooManyAttempts`, whether there is such an account or not.
        """
        email_key = comparable(email)
        subject = throttles.of_network(f"forgot {email_key}", address)
        self._throttles.reserve(subject)
        now = self._clock()
        row_id = new_id()
        values = {
            "subject": subject,
            "now": now,
            "again_after": now - _AGAIN,
            "id": str(row_id),
            "email_key": email_key,
        }
        told = outbox.Also("SELECT FROM made")
        if self._public_url is not None:
            told = outbox.event_of_made(events.mail_wanted(row_id, now))
        self._database.once(_FORGOT + told.text, {**values, **told.values, "expires_at": now + LASTS["reset"]})
        return _accepted("reset")

    def make(self, user_id: UUID, purpose: Purpose, by: By, *, mail: bool = False) -> LinkView:
        """A link for somebody, which an administrator hands over or has sent by mail; the one before ends. For another
        address it is the one that they have asked for. Raises `UserNotFound`, and `Invalid` if they have asked for none
        or no mail is sent."""
        now = self._clock()
        if mail and self._public_url is None:
            raise Invalid.field("mail", "none is sent here: PUBLIC_URL is not set for the users service")
        with self._database.transaction() as transaction:
            user = changes.locked(transaction, user_id)
            if purpose == "email":
                mine = (OneTimeToken.user_id == user_id, OneTimeToken.purpose == "email")
                found = select(OneTimeToken.id, OneTimeToken.expires_at).where(*mine, OneTimeToken.expires_at > now)
                row = transaction.execute(found).one_or_none()
                if row is None:
                    raise Invalid.field("purpose", "they have not asked for another address")
                row_id, expires_at = row.id, row.expires_at
            else:
                row_id, expires_at = _put(transaction, user_id, purpose, now)
            changes.record(transaction, "link.made", by, user_id, now, {"purpose": purpose, "mail": mail})
            if mail:
                self._send(transaction, row_id, now)
        token = None if mail else self._text(row_id, purpose, user)
        return LinkView(purpose=purpose, token=token, expires_at=expires_at)

    def message(self, row_id: UUID) -> MailView:
        """The message with a link, for whoever sends it at this moment. Raises `MailNotFound`."""
        wanted = (
            User.email, User.email_key, User.password_hash, OneTimeToken.purpose,
            OneTimeToken.email.label("other_email"), OneTimeToken.expires_at,
        )  # fmt: skip
        is_live = (OneTimeToken.expires_at > self._clock(), User.disabled_at.is_(None))
        found = select(*wanted).join(OneTimeToken, OneTimeToken.user_id == User.id)
        with self._database.transaction() as transaction:
            row = transaction.execute(found.where(OneTimeToken.id == row_id, *is_live)).one_or_none()
        if row is None or self._public_url is None:
            raise MailNotFound
        token = self._text(row_id, row.purpose, row)
        # To the stored address, however somebody wrote it who asked for the link.
        to = row.other_email or row.email
        subject, text = mails.written(row.purpose, token, row.expires_at, self._public_url)
        return MailView(to=to, subject=subject, text=text)

    def reset(self, token: str, password: str, address: str) -> Ended:
        """Set a password by a link, which ends all sessions, access tokens and other links of the user.

        Raises `Invalid` for a link that is not valid, or a weak password, and as `Passwords.hash`.
        """
        with self._database.transaction() as transaction:
            user = self._opened(transaction, token, "reset", "invitation")
        if (wrong := weakness(password, (user.email, user.name))) is not None:
            raise Invalid.field("password", wrong)
        password_hash = self._passwords.hash(password)
        now = self._clock()
        with self._database.transaction() as transaction:
            # Once more: of two at once one is the second.
            self._opened(transaction, token, "reset", "invitation")
            ended = sessions.end_all(transaction, user.id)
            _forget(transaction, user.id)
            changes.raise_epoch(transaction, user.id, now, password_hash=password_hash, must_change_password=False)
            changes.record(transaction, "user.password_reset", By(user.id, address), user.id, now)
        return Ended(sessions=ended)

    def invited(self, transaction: Transaction, token: str) -> UUID:
        """Whom an invitation is for, locked. Raises `Invalid` for one that is not valid."""
        user_id: UUID = self._opened(transaction, token, "invitation").id
        return user_id

    def take_up(self, transaction: Transaction, token: str, address: str) -> UUID:
        """Take up an invitation without a password: whatever let its user in before ends, their password with it.
        Raises `Invalid`."""
        user_id, now = self.invited(transaction, token), self._clock()
        sessions.end_all(transaction, user_id)
        _forget(transaction, user_id)
        changes.raise_epoch(transaction, user_id, now, password_hash=None, must_change_password=False)
        changes.record(transaction, "user.invitation_taken", By(user_id, address), user_id, now)
        return user_id

    def ask_for_address(self, email: str, caller: Principal) -> Accepted:
        """Note that the caller wants another address, which they have yet to prove; the same for one that is taken.

        Raises `Forbidden` for whoever came by a key, `LoginNotFresh`, and `TooManyAttempts`.
        """
        require_session(caller)
        now = self._clock()
        assert caller.user_id is not None
        with self._database.transaction() as transaction:
            sessions.require_fresh(transaction, caller, now)
        self._throttles.reserve(throttles.of_network(f"email {caller.user_id}", ""))
        with self._database.transaction() as transaction:
            changes.locked(transaction, caller.user_id)
            row_id, _ = _put(transaction, caller.user_id, "email", now, email)
            if self._public_url is not None:
                self._send(transaction, row_id, now)
        return _accepted("email")

    def confirm_address(self, token: str, address: str) -> ConfirmedView:
        """Give a user the address that a link proves. Raises `Invalid` for a wrong one, and `EmailTaken`."""
        now = self._clock()
        with self._database.transaction() as transaction:
            user = self._opened(transaction, token, "email")
            email = user.new_email
            shown = {name: getattr(user, name) for name in UserView.model_fields}
            after = UserView.unchecked(**shown | {"email": email, "updated_at": max(now, user.created_at)})
            _forget(transaction, user.id)
            changes.raise_epoch(
                transaction,
                user.id,
                now,
                email=email,
                email_key=comparable(email),
                email_verified_at=now,
                updated_at=after.updated_at,
            )
            changes.record(transaction, "user.email_changed", By(user.id, address), user.id, now)
            if self._public_url is not None:
                row_id, _ = _put(transaction, user.id, "moved", now, user.email)
                self._send(transaction, row_id, now)
            outbox.add_all(transaction, [events.updated(after, after.roles)])
        return ConfirmedView(id=user.id, email=email)

    def _send(self, transaction: Transaction, row_id: UUID, now: datetime) -> None:
        outbox.add_all(transaction, [events.mail_wanted(row_id, now)])

    def _text(self, row_id: UUID, purpose: str, user: Any) -> str:
        state = (purpose, user.email_key, user.password_hash or "")
        message = row_id.bytes + "\0".join(state).encode("utf-8")
        signed = row_id.bytes + hmac.digest(self._key, message, hashlib.sha256)
        return _PREFIX + base64.urlsafe_b64encode(signed).decode("ascii").rstrip("=")

    def _opened(self, transaction: Transaction, token: str, *purposes: Purpose) -> Any:
        """The user of a link for one of these purposes, locked, and its `new_email`. Raises `Invalid`."""
        worthless = Invalid.field("token", "was used, has expired, or is wrong: ask for another link")
        try:
            encoded = token.removeprefix(_PREFIX)
            row_id = UUID(bytes=base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))[:_ID])
        except (binascii.Error, ValueError):
            raise worthless from None
        wanted = (
            *(getattr(User, name) for name in UserView.model_fields),
            User.email_key, User.password_hash, OneTimeToken.purpose, OneTimeToken.email.label("new_email"),
        )  # fmt: skip
        is_live = (OneTimeToken.expires_at > self._clock(), User.disabled_at.is_(None))
        found = select(*wanted).join(OneTimeToken, OneTimeToken.user_id == User.id)
        row = transaction.execute(
            found.where(OneTimeToken.id == row_id, OneTimeToken.purpose.in_(purposes), *is_live).with_for_update()
        ).one_or_none()
        if row is None or not hmac.compare_digest(self._text(row_id, row.purpose, row).encode(), token.encode()):
            raise worthless
        return row


def _accepted(purpose: Purpose) -> Accepted:
    return Accepted(expires_in=int(LASTS[purpose].total_seconds()))


def _put(
    transaction: Transaction, user_id: UUID, purpose: str, now: datetime, email: str | None = None
) -> tuple[UUID, datetime]:
    """Store a link in the place of those for the same purpose; returns its id and its end."""
    _forget(transaction, user_id, OneTimeToken.purpose == purpose)
    row_id, expires_at = new_id(), now + LASTS[purpose]
    row = {"user_id": user_id, "purpose": purpose, "email": email, "created_at": now, "expires_at": expires_at}
    transaction.execute(insert(OneTimeToken).values(id=row_id, **row))
    return row_id, expires_at


def _forget(transaction: Transaction, user_id: UUID, *which: Any) -> None:
    """Remove links. Whoever had the address before is told of that whatever comes after."""
    links = (OneTimeToken.user_id == user_id, OneTimeToken.purpose != "moved", *which)
    transaction.execute(delete(OneTimeToken).where(*links))
