"""What administrators do about accounts, and what everybody did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session as Transaction

from service_users import events
from service_users.accounts import changes, sessions
from service_users.accounts.access_schemas import (
    AccountView,
    AppendedView,
    AuditEntry,
    AuditPage,
    AuditQuery,
    Refusals,
)
from service_users.accounts.changes import By
from service_users.accounts.schemas import Ended
from service_users.errors import LastAdministrator
from service_users.tables import AuditRow, OneTimeToken, User
from servicekit.database.engine import Database
from servicekit.database.privileges import PRUNED
from servicekit.events import outbox
from servicekit.identity.roles import Role
from servicekit.observing.logs import get_logger
from servicekit.process.backoff import jittered
from servicekit.process.clock import Clock, utc_now
from servicekit.process.lifecycle import Duty, stop_this_process
from servicekit.wire.errors import AppError

#: The advisory lock under which somebody ceases to be an administrator, so that the last two do not at once.
_LOCK = 0x5157_6164
#: In seconds.
_PRUNE_EVERY = 3600.0

log = get_logger(__name__)


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


class AuditPruning(Duty):
    """Has the database remove what is older than AUDIT_KEEP_DAYS, which only the owner of the audit may change."""

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        super().__init__("audit", pause=lambda: jittered(_PRUNE_EVERY), on_death=stop_this_process, clock=clock)
        self._database = database
        self._is_first = True

    def run_once(self, now: datetime) -> None:
        if self._is_first:
            # A process that has just started has other things to do.
            self._is_first = False
            return
        try:
            while not self.stopping and self._database.once("SELECT prune_audit()", {})[0][0] == PRUNED:
                pass
        except AppError as exc:
            log.warning("audit_not_pruned", cause=repr(exc.__cause__ or exc)[:300])


class Administration:
    """The use cases; thread-safe."""

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

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

    def append(self, told: Refusals) -> AppendedView:
        """Write what was refused to whom; what was told before is not written again."""
        rows = [
            {
                "id": one.id,
                "happened_at": one.minute,
                "action": "request.refused",
                "address": one.address,
                "details": {"reason": one.reason, "count": one.count},
            }
            for one in told.refusals
        ]
        with self._database.transaction() as transaction:
            written = transaction.execute(insert(AuditRow).values(rows).on_conflict_do_nothing().returning(AuditRow.id))
            return AppendedView(entries=len(written.all()))

    def audit(self, query: AuditQuery) -> AuditPage:
        """One page of the audit, the newest first."""
        conditions: dict[str, Callable[[Any], ColumnElement[bool]]] = {
            "after": AuditRow.id.__lt__,
            "actor": AuditRow.actor.__eq__,
            "subject": AuditRow.subject.__eq__,
            "action": AuditRow.action.__eq__,
            "happened_from": AuditRow.happened_at.__ge__,
            "happened_to": AuditRow.happened_at.__lt__,
        }
        asked = {name: value for name in conditions if (value := getattr(query, name)) is not None}
        given = [conditions[name](value) for name, value in asked.items()]
        columns: list[Any] = [getattr(AuditRow, name) for name in AuditEntry.model_fields]
        wanted = select(*columns).where(*given).order_by(AuditRow.id.desc()).limit(query.limit + 1)
        with self._database.transaction() as transaction:
            rows = transaction.execute(wanted).all()
        page = rows[: query.limit]
        return AuditPage.unchecked(
            limit=query.limit, next=page[-1].id if len(rows) > query.limit else None, entries=page
        )
