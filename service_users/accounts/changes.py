"""What a change of an account leaves behind, in its own transaction: what is refused from now on, and who did it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session as Transaction

from service_users.errors import UserNotFound
from service_users.tables import AuditRow, Revocation, User
from servicekit.events.outbox import Also
from servicekit.identity.tokens import LIFETIME, SKEW
from servicekit.observing.request_id import current_request_id
from servicekit.process.ids import new_id
from servicekit.wire.envelope import dump

#: How long a revocation matters, in seconds: until the last token that it is about has expired by any clock.
KEPT = LIFETIME + 2 * SKEW
#: Above the epoch of every user.
GONE = 2**31 - 1

Kind = Literal["session", "key", "user"]


@dataclass(frozen=True, slots=True)
class By:
    """Who changes something, and from which address; None: the machine's own."""

    actor: UUID | None = None
    address: str | None = None


def revoke(transaction: Transaction, kind: Kind, subject: UUID, now: datetime, least_epoch: int | None = None) -> None:
    """Have the gateway refuse the access tokens of a session or key, or of a user below an epoch."""
    row = {"kind": kind, "subject": subject, "least_epoch": least_epoch, "revoked_at": now}
    adding = insert(Revocation).values(row)
    later = {
        "least_epoch": func.greatest(Revocation.least_epoch, adding.excluded.least_epoch),
        "revoked_at": adding.excluded.revoked_at,
    }
    transaction.execute(adding.on_conflict_do_update(constraint="pk_revocations", set_=later))
    transaction.execute(delete(Revocation).where(Revocation.revoked_at < now - timedelta(seconds=KEPT)))


def locked_if_any(transaction: Transaction, user_id: UUID) -> Any:
    """What changes of an account depend on, of a user, locked; None if there is none."""
    wanted = (
        User.email_key, User.password_hash, User.must_change_password, User.disabled_at, User.roles, User.auth_epoch
    )  # fmt: skip
    return transaction.execute(select(*wanted).where(User.id == user_id).with_for_update()).one_or_none()


def locked(transaction: Transaction, user_id: UUID) -> Any:
    """The same; raises `UserNotFound`."""
    user = locked_if_any(transaction, user_id)
    if user is None:
        raise UserNotFound
    return user


def raise_epoch(transaction: Transaction, user_id: UUID, now: datetime, **values: Any) -> int:
    """Set these columns of a user, and end every access token issued before; returns the new epoch."""
    raising = update(User).where(User.id == user_id).values(auth_epoch=User.auth_epoch + 1, **values)
    epoch: int = transaction.execute(raising.returning(User.auth_epoch)).scalar_one()
    revoke(transaction, "user", user_id, now, epoch)
    return epoch


def record(
    transaction: Transaction,
    action: str,
    by: By,
    subject: UUID | None,
    now: datetime,
    details: dict[str, Any] | None = None,
) -> None:
    """Write who did what to whom; `details` hold no value of a person."""
    row = _audit_row(action, by, now) | {"subject": subject, "details": details or {}}
    transaction.execute(insert(AuditRow).values(row))


_AUDITED = """, audited AS (
INSERT INTO audit (id, happened_at, actor, action, subject, address, request_id, details)
SELECT %(audit_id)s, %(audit_happened_at)s, %(audit_actor)s::uuid, %(audit_action)s, made.id, %(audit_address)s,
       %(audit_request_id)s, %(audit_details)s::jsonb
FROM made)"""
_REVOKED = """, revoked AS (
INSERT INTO revocations (kind, subject, least_epoch, revoked_at)
SELECT 'user', made.id, %(least_epoch)s, %(audit_happened_at)s FROM made
ON CONFLICT (kind, subject) DO UPDATE
SET least_epoch = greatest(revocations.least_epoch, excluded.least_epoch), revoked_at = excluded.revoked_at)"""
_ENDED = """, ended AS (
DELETE FROM sessions WHERE user_id = (SELECT id FROM made))
, spent AS (
DELETE FROM one_time_tokens WHERE purpose = 'reset' AND user_id = (SELECT id FROM made))"""


def of_made(
    action: str,
    by: By,
    now: datetime,
    *,
    details: dict[str, Any],
    least_epoch: int | None = None,
    ends_sessions: bool = False,
) -> Also:
    """The same for a change of a user in one statement; with `least_epoch` it also has older access tokens refused."""
    values = {f"audit_{name}": value for name, value in _audit_row(action, by, now).items()}
    values |= {"audit_details": dump(details).decode("utf-8"), "least_epoch": least_epoch}
    revoked = "" if least_epoch is None else _REVOKED
    return Also(_AUDITED + revoked + (_ENDED if ends_sessions else ""), values)


def _audit_row(action: str, by: By, now: datetime) -> dict[str, Any]:
    return {
        "id": new_id(),
        "happened_at": now,
        "actor": by.actor,
        "action": action,
        "address": by.address,
        "request_id": current_request_id() or None,
    }
