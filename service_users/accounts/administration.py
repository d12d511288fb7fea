"""What administrators do about accounts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import bindparam, delete, func, select, text
from sqlalchemy.orm import Session as Transaction

from service_users import events
from service_users.accounts import changes, sessions
from service_users.accounts.access_schemas import AccountView, WholeAccountView
from service_users.accounts.changes import By
from service_users.accounts.schemas import Ended
from service_users.errors import LastAdministrator, UserNotFound
from service_users.tables import Factor, IdentityRow, OneTimeToken, User
from servicekit.database.engine import Database
from servicekit.database.statement import Statement
from servicekit.events import outbox
from servicekit.identity.roles import Role
from servicekit.process.clock import Clock, utc_now

#: The advisory lock under which somebody ceases to be an administrator, so that the last two do not at once.
_LOCK = 0x5157_6164

_ACCOUNT = Statement(
    select(
        User.id,
        User.disabled_at,
        User.password_hash.is_not(None).label("has_password"),
        User.must_change_password,
        User.email_verified_at,
        select(func.count())
        .where(Factor.user_id == User.id, Factor.confirmed_at.is_not(None))
        .scalar_subquery()
        .label("factors"),
        select(func.count()).where(IdentityRow.user_id == User.id).scalar_subquery().label("identities"),
    ).where(User.id == bindparam("id"))
)


@contextmanager
def another_admin_stays(database: Database, user_id: UUID, by: By) -> Iterator[Transaction]:
    """A transaction during which nobody else ceases to be an administrator.

    Raises `LastAdministrator` if nobody but this user is one who may log in; not for the machine's own, who needs none.
    """
    with database.transaction() as transaction:
        if by.actor is not None:
            transaction.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            can = (User.roles.contains([Role.ADMIN.value]), User.disabled_at.is_(None), User.password_hash.is_not(None))
            if transaction.execute(select(User.id).where(*can, User.id != user_id).limit(1)).first() is None:
                raise LastAdministrator
        yield transaction


class Administration:
    """The use cases; thread-safe."""

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    def account(self, user_id: UUID) -> WholeAccountView:
        """By what somebody may log in. Raises `UserNotFound`."""
        rows = self._database.rows(_ACCOUNT, {"id": user_id})
        if not rows:
            raise UserNotFound
        return WholeAccountView.of(rows[0])

    def disable(self, user_id: UUID, by: By) -> AccountView:
        """End all that lets somebody in, until they are enabled. Raises `UserNotFound` and `LastAdministrator`."""
        with another_admin_stays(self._database, user_id, by) as transaction:
            user = changes.locked(transaction, user_id)
            if user.disabled_at is not None:
                return AccountView(id=user_id, disabled_at=user.disabled_at)
            now = self._clock()
            sessions.end_all(transaction, user_id)
            transaction.execute(delete(OneTimeToken).where(OneTimeToken.user_id == user_id))
            changes.raise_epoch(transaction, user_id, now, disabled_at=now)
            changes.record(transaction, "user.disabled", by, user_id, now)
            outbox.add_all(transaction, [events.disabled(user_id, now)])
        return AccountView(id=user_id, disabled_at=now)

    def enable(self, user_id: UUID, by: By) -> AccountView:
        """Let somebody log in again, and their API keys work. Raises `UserNotFound`."""
        now = self._clock()
        with self._database.transaction() as transaction:
            if changes.locked(transaction, user_id).disabled_at is not None:
                changes.raise_epoch(transaction, user_id, now, disabled_at=None)
                changes.record(transaction, "user.enabled", by, user_id, now)
                outbox.add_all(transaction, [events.enabled(user_id, now)])
        return AccountView(id=user_id, disabled_at=None)

    def end_sessions(self, user_id: UUID, by: By) -> Ended:
        """Log somebody out everywhere. Raises `UserNotFound`."""
        now = self._clock()
        with self._database.transaction() as transaction:
            changes.locked(transaction, user_id)
            ended = sessions.end_all(transaction, user_id)
            changes.raise_epoch(transaction, user_id, now)
            changes.record(transaction, "sessions.ended", by, user_id, now)
        return Ended(sessions=ended)
