"""The use cases of second factors: an authenticator app, and the recovery codes for the day that it is lost.

The secret of an app is stored encrypted, and of recovery codes a hash under a key outside the database: they are short.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import LargeBinary, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session as Transaction

from service_users.accounts import changes, sessions
from service_users.accounts.api_keys import require_session
from service_users.accounts.changes import By
from service_users.accounts.schemas import (
    ConfirmedFactorView,
    FactorCreate,
    FactorList,
    FactorsRemoved,
    FactorView,
    NewFactorView,
)
from service_users.accounts.totp import SECRET_BYTES, otpauth_uri, secret_text, step_of
from service_users.auth_key import AuthKey, Box
from service_users.errors import FactorNotFound, InvalidCredential, TooManyFactors
from service_users.tables import Factor, User
from servicekit.database.engine import Database
from servicekit.database.statement import Statement
from servicekit.identity.principal import Principal
from servicekit.identity.reach import Reach
from servicekit.process.clock import Clock, utc_now
from servicekit.process.ids import new_id
from servicekit.wire.errors import Invalid

#: Factors of one user.
MOST = 5
#: How long a new factor waits to be confirmed.
ENROLLING = timedelta(minutes=10)
RECOVERY_CODES = 10
_ISSUER = "Siteworks"
#: Of a recovery code: 80 bits.
_RECOVERY_BYTES = 10
_DIGITS = re.compile(r"[0-9]{6}")
_SHOWN: tuple[Any, ...] = (
    Factor.id,
    Factor.name,
    func.cardinality(Factor.recovery).label("recovery_codes_left"),
    Factor.confirmed_at,
    Factor.last_used_at,
)
_LIST = Statement(
    select(*_SHOWN)
    .where(Factor.user_id == bindparam("reach"), Factor.confirmed_at.is_not(None))
    .order_by(Factor.confirmed_at, Factor.id)
)


class Factors:
    """The use cases; thread-safe."""

    def __init__(self, database: Database, key: AuthKey, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._box = Box(key, "factors")
        self._recovery_key = key.derived("recovery codes")
        self._clock = clock

    def enrol(self, wanted: FactorCreate, caller: Principal, *, reach: Reach) -> NewFactorView:
        """A new secret for an app, which counts once it is confirmed; the one before that was not is forgotten.

        Raises `Forbidden` for whoever came by a key, `LoginNotFresh` and `TooManyFactors`.
        """
        require_session(caller)
        now = self._clock()
        secret, factor_id = secrets.token_bytes(SECRET_BYTES), new_id()
        with self._database.transaction() as transaction:
            sessions.require_fresh(transaction, caller, now)
            user = self._locked(transaction, reach)
            mine = Factor.user_id == reach.owner
            transaction.execute(delete(Factor).where(mine, Factor.confirmed_at.is_(None)))
            if transaction.execute(select(func.count()).select_from(Factor).where(mine)).scalar_one() >= MOST:
                raise TooManyFactors
            sealed = self._box.seal(secret, str(factor_id))
            row = {"id": factor_id, "user_id": reach.owner, "name": wanted.name, "secret": sealed}
            transaction.execute(insert(Factor).values(**row, recovery=[], last_step=0, created_at=now))
        return NewFactorView(
            id=factor_id,
            name=wanted.name,
            secret=secret_text(secret),
            uri=otpauth_uri(secret, issuer=_ISSUER, account=user.email),
            expires_in=int(ENROLLING.total_seconds()),
        )

    def confirm(self, factor_id: UUID, code: str, caller: Principal, by: By, *, reach: Reach) -> ConfirmedFactorView:
        """Ask for this factor from now on. Whoever logged in without it, elsewhere, is logged out.

        Raises `FactorNotFound`, also for one that was confirmed or has waited too long, `Invalid` for a wrong code, and
        `Forbidden` for whoever came by a key.
        """
        require_session(caller)
        now = self._clock()
        codes = [_new_recovery_code() for _ in range(RECOVERY_CODES)]
        with self._database.transaction() as transaction:
            self._locked(transaction, reach)
            waits = (
                Factor.user_id == reach.owner,
                Factor.confirmed_at.is_(None),
                Factor.created_at > now - ENROLLING,
            )
            row = transaction.execute(
                select(Factor.secret, Factor.name).where(Factor.id == factor_id, *waits)
            ).one_or_none()
            if row is None:
                raise FactorNotFound
            step = self._step(factor_id, row.secret, _plain(code), now)
            if step is None:
                raise Invalid.field("code", "is not what the app shows now: does its clock go right?")
            assert reach.owner is not None
            hashes = [self._hash(reach.owner, one) for one in codes]
            confirming = update(Factor).where(Factor.id == factor_id)
            transaction.execute(confirming.values(confirmed_at=now, last_step=step, recovery=hashes))
            sessions.end_all(transaction, reach.owner, but=caller.session_id)
            changes.raise_epoch(transaction, reach.owner, now)
            changes.record(transaction, "factor.confirmed", by, reach.owner, now, {"factor": str(factor_id)})
        return ConfirmedFactorView(
            id=factor_id,
            name=row.name,
            recovery_codes_left=len(codes),
            confirmed_at=now,
            last_used_at=None,
            recovery_codes=codes,
        )

    def listed(self, *, reach: Reach) -> FactorList:
        """The factors of the one in reach."""
        return FactorList.unchecked(factors=self._database.rows(_LIST, {"reach": reach.owner}))

    def remove(self, factor_id: UUID, caller: Principal, by: By, *, reach: Reach) -> FactorView:
        """Stop asking for a factor.

        Raises `FactorNotFound`, `Forbidden` for whoever came by a key, and `LoginNotFresh`.
        """
        require_session(caller)
        now = self._clock()
        with self._database.transaction() as transaction:
            sessions.require_fresh(transaction, caller, now)
            mine = (Factor.id == factor_id, Factor.user_id == reach.owner, Factor.confirmed_at.is_not(None))
            gone = transaction.execute(delete(Factor).where(*mine).returning(*_SHOWN, Factor.user_id)).one_or_none()
            if gone is None:
                raise FactorNotFound
            changes.record(transaction, "factor.removed", by, gone.user_id, now, {"factor": str(factor_id)})
        return FactorView.of(gone)

    def remove_all(self, user_id: UUID, by: By) -> FactorsRemoved:
        """Take from somebody what they have lost. Raises `UserNotFound`."""
        with self._database.transaction() as transaction:
            changes.locked(transaction, user_id)
            gone = forget(transaction, user_id)
            changes.record(transaction, "factors.removed", by, user_id, self._clock())
        return FactorsRemoved(factors=gone)

    def use(self, transaction: Transaction, user_id: UUID, code: str, now: datetime) -> bool:
        """Whether this is a code of one of the user's apps, or a recovery code. It is none a second time, also of two
        requests at once: each takes it from the row that says so."""
        code = _plain(code)
        ours = (Factor.user_id == user_id, Factor.confirmed_at.is_not(None))
        if not _DIGITS.fullmatch(code):
            hashed = bindparam("hashed", self._hash(user_id, code), type_=LargeBinary)
            taking = update(Factor).where(*ours, hashed == func.any(Factor.recovery))
            taken = taking.values(recovery=func.array_remove(Factor.recovery, hashed), last_used_at=now)
            return transaction.execute(taken.returning(Factor.id)).first() is not None
        for row in transaction.execute(select(Factor.id, Factor.secret).where(*ours)).all():
            step = self._step(row.id, row.secret, code, now)
            if step is not None:
                later = update(Factor).where(Factor.id == row.id, Factor.last_step < step)
                taken = later.values(last_step=step, last_used_at=now)
                if transaction.execute(taken.returning(Factor.id)).first() is not None:
                    return True
        return False

    def _locked(self, transaction: Transaction, reach: Reach) -> Any:
        """The one in reach, locked, so that two requests at once do not make one too many."""
        owner = (User.id == reach.owner, User.disabled_at.is_(None))
        user = transaction.execute(select(User.email).where(*owner).with_for_update()).one_or_none()
        if user is None:
            raise InvalidCredential
        return user

    def _step(self, factor_id: UUID, sealed: bytes, code: str, now: datetime) -> int | None:
        """As `step_of`; of a secret that another AUTH_KEY has sealed there is none."""
        secret = self._box.open(bytes(sealed), str(factor_id))
        return None if secret is None else step_of(secret, code, now.timestamp())

    def _hash(self, user_id: UUID, recovery_code: str) -> bytes:
        return hmac.digest(self._recovery_key, user_id.bytes + _plain(recovery_code).encode(), hashlib.sha256)


def asked_of(transaction: Transaction, user_id: UUID) -> bool:
    """Whether somebody has a second factor."""
    found = select(Factor.id).where(Factor.user_id == user_id, Factor.confirmed_at.is_not(None))
    return transaction.execute(found.limit(1)).first() is not None


def forget(transaction: Transaction, user_id: UUID) -> int:
    """Remove all factors of a user; returns how many counted."""
    gone = delete(Factor).where(Factor.user_id == user_id).returning(Factor.confirmed_at)
    return sum(confirmed_at is not None for confirmed_at in transaction.execute(gone).scalars())


def _new_recovery_code() -> str:
    """Sixteen letters and digits, in fours."""
    text = base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode("ascii").lower()
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


def _plain(code: str) -> str:
    """A code however it was typed."""
    return re.sub(r"[\s-]", "", code).lower()
