"""The keys that sign access tokens: made at first need, replaced by age, and published."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session as Transaction

from service_users.auth_key import AuthKey, Box
from service_users.tables import SigningKeyRow
from servicekit.database.engine import Database
from servicekit.database.statement import Statement
from servicekit.identity.keys import SigningKey
from servicekit.identity.rotation import AHEAD, DatedKey, keys_needed, signing_key
from servicekit.identity.tokens import AUDIENCE, Now, TokenIssuer
from servicekit.observing.logs import get_logger

#: How old the newest key gets before another is made, in seconds.
MOST_AGE = 30 * 86_400
#: How long a process takes its keys for those of the database, in seconds: far shorter than a key is published before
#: it signs.
_FRESH = 20.0
#: The advisory lock under which keys are made.
_LOCK = 0x5157_6B65
_COLUMNS: tuple[Any, ...] = (SigningKeyRow.key_id, SigningKeyRow.secret, SigningKeyRow.created_at)
_READ = Statement(select(*_COLUMNS))

log = get_logger(__name__)


class SigningKeys:
    """The signing keys of all processes, which the database holds encrypted. Thread-safe."""

    def __init__(self, database: Database, key: AuthKey, *, issuer: str, now: Now = time.time) -> None:
        self._database = database
        self._box = Box(key, "signing keys")
        self._issuer = issuer
        self._now = now
        self._lock = threading.Lock()
        self._keys: list[DatedKey] = []
        self._read_at = 0.0

    def issuer(self, now: Now | None = None) -> TokenIssuer:
        """What issues access tokens at the moment, or as of `now`. Raises as `Database.rows` does."""
        key = signing_key(self._present(), self._now()).key
        return TokenIssuer(key, issuer=self._issuer, audience=AUDIENCE, now=now or self._now)

    def document(self) -> bytes:
        """The JSON Web Key Set (RFC 7517). Raises as `Database.rows` does: who could not renew a token must not
        believe that this service is there."""
        needed = keys_needed(self._present(), self._now())
        return msgspec.json.encode({"keys": [one.key.public() for one in needed]})

    def rotate(self) -> float:
        """Make the next key now; returns when it signs, in seconds since 1970. One that waits to sign is the next
        already, so that never are there more keys than verifiers take. Raises as `Database.transaction` does."""
        now = self._now()
        with self._database.transaction() as transaction:
            transaction.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            keys = self._opened(transaction.execute(select(*_COLUMNS)).all())
            newest = max(keys, key=lambda one: one.made_at, default=None)
            if newest is None or newest is signing_key(keys, now):
                newest = self._make(transaction, now)
        # The first one ever need not wait.
        return newest.made_at + AHEAD if keys else now

    def _present(self) -> list[DatedKey]:
        with self._lock:
            now = self._now()
            if not self._keys or not 0 <= now - self._read_at < _FRESH:
                keys = self._opened(self._database.rows(_READ, {}))
                if _lacks_one(keys, now) or len(keys_needed(keys, now)) < len(keys):
                    keys = self._replace(now)
                self._keys, self._read_at = keys, now
            return self._keys

    def _replace(self, now: float) -> list[DatedKey]:
        """Make the key that is lacking, and delete those that are needed no longer."""
        with self._database.transaction() as transaction:
            transaction.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            keys = self._opened(transaction.execute(select(*_COLUMNS)).all())
            if _lacks_one(keys, now):
                made = self._make(transaction, now)
                log.info("signing_key_made", key_id=made.key.key_id)
                keys.append(made)
            needed = keys_needed(keys, now)
            gone = [one.key.key_id for one in keys if one not in needed]
            if gone:
                transaction.execute(delete(SigningKeyRow).where(SigningKeyRow.key_id.in_(gone)))
        return needed

    def _make(self, transaction: Transaction, now: float) -> DatedKey:
        key = SigningKey.generate()
        secret = self._box.seal(key.secret(), key.key_id)
        row = {"key_id": key.key_id, "secret": secret, "created_at": datetime.fromtimestamp(now, UTC)}
        transaction.execute(insert(SigningKeyRow).values(row))
        return DatedKey(now, key)

    def _opened(self, rows: Iterable[Any]) -> list[DatedKey]:
        """The keys that AUTH_KEY opens. Those of another one are as good as lost: another is made."""
        found = []
        for key_id, sealed, created_at in rows:
            secret = self._box.open(bytes(sealed), key_id)
            if secret is None:
                log.error("signing_key_unreadable", key_id=key_id, cause="AUTH_KEY is not the one that it was made by")
                continue
            found.append(DatedKey(created_at.timestamp(), SigningKey.read(secret)))
        return found


def _lacks_one(keys: list[DatedKey], now: float) -> bool:
    return not keys or max(one.made_at for one in keys) + MOST_AGE <= now
