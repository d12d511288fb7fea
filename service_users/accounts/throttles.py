"""Slows down whoever guesses: a pause after each wrong password of one account from one network.

It grows, and nothing is ever locked: whoever guesses keeps nobody else out, except for moments from the same network.
An attempt is counted before it is looked at, so that many at once gain nothing.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from service_users.errors import TooManyAttempts
from servicekit.database.engine import Database
from servicekit.process.clock import Clock, utc_now
from servicekit.process.hosts import read_address

#: Wrong attempts without a pause.
FREE = 5
#: The longest pause, in seconds; the first is one second, and each twice the one before.
LONGEST = 60
#: How long after the last attempt all are forgotten, in seconds.
REMEMBERED = 900
_PRUNE_EVERY = 60.0
#: How long a process believes a pause without looking again, and how many at once.
_BELIEVED = timedelta(seconds=1)
_MOST_BELIEVED = 10_000
_NO_PAUSE = (datetime.min.replace(tzinfo=UTC),) * 2

_RESERVE = f"""
INSERT INTO throttles AS known (subject, failures, until) VALUES (%(subject)s, 1, %(now)s)
ON CONFLICT (subject) DO UPDATE
SET failures = CASE WHEN known.until < %(forgotten)s THEN 1 ELSE known.failures + 1 END,
    until = CASE WHEN known.until < %(forgotten)s OR known.failures + 1 < {FREE} THEN %(now)s
            ELSE %(now)s + least({LONGEST}, 2 ^ least(known.failures + 1 - {FREE}, 10)) * interval '1 second' END
WHERE known.until <= %(now)s
RETURNING failures
"""
_UNTIL = "SELECT until FROM throttles WHERE subject = %(subject)s"
_SETTLE = "DELETE FROM throttles WHERE subject = %(subject)s"
_GIVE_BACK = """
WITH forgotten AS (DELETE FROM throttles WHERE subject = %(subject)s AND failures = 1)
UPDATE throttles SET failures = failures - 1, until = %(now)s WHERE subject = %(subject)s AND failures > 1
"""
_PRUNE = "DELETE FROM throttles WHERE until < %(forgotten)s"


def of_network(account: str, address: str) -> bytes:
    """What is counted for an account, existing or not, and the network of a client."""
    return hashlib.sha256(f"{network(address)} {account}".encode()).digest()


def of_device(device: UUID, user_id: UUID) -> bytes:
    """What is counted for a device on which a user has logged in before."""
    return hashlib.sha256(f"device {device} {user_id}".encode()).digest()


def of_codes(user_id: UUID, known_device: UUID | None) -> bytes:
    """What is counted for the codes of a second factor. Whoever sends one knows the password, so it is the account's
    count, from wherever: six digits would not last against many networks. A known device has its own."""
    return hashlib.sha256(f"codes {user_id} {known_device}".encode()).digest()


def network(address: str) -> str:
    """The /24 or /64 of an address, which one person can fill; text that is no address stands for itself."""
    parsed = read_address(address)
    if parsed is None:
        return address
    return str(ipaddress.ip_network((parsed, 24 if parsed.version == 4 else 64), strict=False))


class Throttles:
    """The counts of all processes, in the database. Thread-safe."""

    def __init__(
        self, database: Database, *, clock: Clock = utc_now, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._clock = clock
        self._monotonic = monotonic
        self._pruned_at = -math.inf
        #: When the pause of a subject ends, and until when that is believed.
        self._pauses: dict[bytes, tuple[datetime, datetime]] = {}

    def refuse_known(self, subject: bytes) -> None:
        """Raise `TooManyAttempts` during a pause that this process has just met, without asking the database: most
        guesses of a flood come then."""
        until, believed = self._pauses.get(subject, _NO_PAUSE)
        if (now := self._clock()) < believed:
            raise _during(until, now)

    def reserve(self, subject: bytes) -> None:
        """Count an attempt as a failure until it is settled. Raises `TooManyAttempts` during a pause."""
        self.refuse_known(subject)
        now = self._clock()
        if self._monotonic() - self._pruned_at > _PRUNE_EVERY:
            self._pruned_at = self._monotonic()
            self._database.once(_PRUNE, {"forgotten": _forgotten(now)})
        while True:
            # Read first: counting locks the row, and a flood of attempts must not wait for each other.
            for (until,) in self._database.once(_UNTIL, {"subject": subject}):
                if until > (now := self._clock()):
                    if len(self._pauses) >= _MOST_BELIEVED:
                        self._pauses.clear()
                    self._pauses[subject] = until, min(until, now + _BELIEVED)
                    raise _during(until, now)
            # Again if another attempt was counted in between: it may have left a pause.
            if self._database.once(_RESERVE, {"subject": subject, "now": now, "forgotten": _forgotten(now)}):
                return

    def settle(self, subject: bytes) -> None:
        """Forget the failures: the attempt has succeeded."""
        self._pauses.pop(subject, None)
        self._database.once(_SETTLE, {"subject": subject})

    def give_back(self, subject: bytes) -> None:
        """Take back the count of an attempt that nobody looked at."""
        self._pauses.pop(subject, None)
        self._database.once(_GIVE_BACK, {"subject": subject, "now": self._clock()})


def _during(until: datetime, now: datetime) -> TooManyAttempts:
    return TooManyAttempts(math.ceil((until - now).total_seconds()))


def _forgotten(now: datetime) -> datetime:
    return now - timedelta(seconds=REMEMBERED)
