"""Client quotas shared by all processes of the gateway."""

from __future__ import annotations

import secrets
from hashlib import blake2b
from pathlib import Path

from api_gateway.limits import Allowance, Quota, RateLimiter
from servicekit.observing.logs import get_logger
from servicekit.process.shared_memory import SharedMemory

ROWS = 4096
#: Clients per row. A client's name determines its row; its place in the row is searched for.
PLACES = 8
# For each client: its number (0: free) and when its quota is full again.
_CLIENT = 2
#: How long a request waits for its row lock, in seconds. Its holder needs microseconds, unless it is stopped.
_PATIENCE = 0.001

log = get_logger(__name__)


class QuotaMemory:
    """The quotas of 32,768 clients in half a megabyte. Create it before the fork; raises OSError."""

    def __init__(self, *, rows: int = ROWS, folder: Path | None = None) -> None:
        self.rows = rows
        self.memory = SharedMemory(rows * PLACES * _CLIENT, folder=folder)
        # Secret, so that a client cannot choose names that collide in one row.
        self._key = secrets.token_bytes(16)

    def number(self, client: str) -> int:
        """A client as a 64-bit number, never 0."""
        return int.from_bytes(blake2b(client.encode(), digest_size=8, key=self._key).digest(), "big") or 1


class SharedRateLimiter(RateLimiter):
    """A RateLimiter in memory shared by all processes. Each process uses it from one event loop.

    In a full row, a new client replaces the one whose quota is nearest to full, which loses least. While a stopped
    process holds a row's lock, the other processes count that row's clients on their own.
    """

    def __init__(self, quota: Quota, shared: QuotaMemory) -> None:
        super().__init__(quota)
        self._shared = shared

    def take(self, client: str, now: float) -> Allowance:
        """Count one request of a client; `now` is time.monotonic, which all processes of a machine share."""
        shared, memory = self._shared, self._shared.memory
        who = shared.number(client)
        row = who % shared.rows
        if not memory.lock(row, _PATIENCE):
            return super().take(client, now)
        try:
            words, times = memory.words, memory.floats
            first = row * PLACES * _CLIENT
            places = range(first, first + PLACES * _CLIENT, _CLIENT)
            at = next((place for place in places if words[place] == who), None)
            if at is None:
                at = min(places, key=lambda place: times[place + 1])
                whole_at = 0.0
            else:
                whole_at = times[at + 1]
            allowance, whole_at = self.quota.take(whole_at, now)
            words[at] = who
            times[at + 1] = whole_at
            return allowance
        finally:
            memory.unlock(row)


_inherited: QuotaMemory | None = None


def prepare_quotas() -> None:
    """Create the shared memory. Called by the master before it forks; later calls do nothing.

    Without shared memory, each process counts for itself.
    """
    global _inherited
    if _inherited is None:
        try:
            _inherited = QuotaMemory()
        except OSError as error:
            log.error("quotas_not_shared", error=str(error))


def limiter_for(quota: Quota) -> RateLimiter:
    """A limiter shared by all processes if the master prepared one, else this process's own."""
    return RateLimiter(quota) if _inherited is None else SharedRateLimiter(quota, _inherited)
