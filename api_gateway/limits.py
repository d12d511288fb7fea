"""Limits per upstream (concurrency, retries), per client (rate) and per process (event-loop lag)."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from dataclasses import dataclass


class BulkheadFull(Exception):
    """The queue is full, or no place came free in time."""


class Bulkhead:
    """At most `places` exchanges at once; up to `max_waiting` more queue, first come first served.

    Belongs to one event loop.
    """

    def __init__(self, *, places: int = 128, max_waiting: int = 2048) -> None:
        if places < 1 or max_waiting < 0:
            raise ValueError("a bulkhead has at least one place")
        self._places = places
        self._max_waiting = max_waiting
        self.in_use = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        return sum(1 for waiter in self._waiters if not waiter.done())

    def try_enter(self) -> bool:
        """Take a place if one is free and nothing is queued for it."""
        if self.in_use < self._places and not self._waiters:
            self.in_use += 1
            return True
        return False

    async def enter(self, seconds: float) -> None:
        """Take a place, waiting up to `seconds`; BulkheadFull otherwise."""
        if self.try_enter():
            return
        if len(self._waiters) >= self._max_waiting:
            raise BulkheadFull
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            self._give_back(waiter)
            raise BulkheadFull from None
        except BaseException:
            self._give_back(waiter)
            raise

    def leave(self) -> None:
        """Give the place back; the longest waiter gets it."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.in_use -= 1

    def _give_back(self, waiter: asyncio.Future[None]) -> None:
        if waiter.done() and not waiter.cancelled():
            self.leave()
            return
        try:
            self._waiters.remove(waiter)
        except ValueError:
            return


class RetryBudget:
    """Limits retries to `share` of the calls, plus a small reserve for services with little traffic.

    When everything fails, retries add at most that share to the load (SRE book, "Addressing Cascading Failures").
    """

    def __init__(self, *, share: float = 0.1, reserve: float = 10.0, ceiling: float = 100.0) -> None:
        self._share = share
        self._ceiling = ceiling
        self._tokens = reserve

    @property
    def left(self) -> float:
        """Retries available now."""
        return self._tokens

    def called(self) -> None:
        """Count one call, which adds its share to the budget."""
        self._tokens = min(self._tokens + self._share, self._ceiling)

    def try_retry(self) -> bool:
        """Spend one retry, if one is left."""
        if self._tokens >= 1:
            self._tokens -= 1
            return True
        return False


@dataclass(frozen=True, slots=True)
class Quota:
    """A number of requests per number of seconds."""

    requests: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Quota:
        """Read `REQUESTS/SECONDS`, such as `100/60`; ValueError for anything else."""
        parts = text.split("/")
        if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in parts):
            raise ValueError("not a quota")
        requests, seconds = map(int, parts)
        if requests < 1 or seconds < 1:
            raise ValueError("not a quota")
        return cls(requests, seconds)

    @property
    def policy(self) -> str:
        """The RateLimit-Policy field (draft-ietf-httpapi-ratelimit-headers)."""
        return f'"default";q={self.requests};w={self.seconds}'

    def take(self, whole_at: float, now: float) -> tuple[Allowance, float]:
        """Count one request of a client whose quota is full again at `whole_at`; also returns the new `whole_at`.

        A client may use its whole quota in one burst, then whatever refills; a refused request costs nothing (GCRA).
        """
        step = self.seconds / self.requests
        whole_at = max(whole_at, now)
        used = whole_at - now
        # 1e-6 absorbs rounding errors.
        wait = used + step - self.seconds - 1e-6
        if wait > 0:
            return Allowance(False, 0, max(1, math.ceil(wait))), whole_at
        used += step
        remaining = int((self.seconds - used) / step + 1e-6)
        return Allowance(True, remaining, math.ceil(used - 1e-6)), whole_at + step


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a client's quota."""

    allowed: bool
    #: Requests that may follow immediately.
    remaining: int
    #: Seconds until the quota is full or, after a refusal, until the next request is accepted.
    seconds: int

    @property
    def field(self) -> str:
        """The RateLimit field."""
        return f'"default";r={self.remaining};t={self.seconds}'


class RateLimiter:
    """A steadily refilling quota per client. Each client takes one number.

    Remembers at most `clients` clients. The one quiet for longest is forgotten, and would start with a full quota.
    """

    def __init__(self, quota: Quota, *, clients: int = 20_000) -> None:
        self.quota = quota
        self._clients = clients
        #: When each client's quota is full again; the client quiet for longest comes first.
        self._whole_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._whole_at)

    def take(self, client: str, now: float) -> Allowance:
        """Count one request of a client; `now` is in seconds on a monotonic clock."""
        allowance, self._whole_at[client] = self.quota.take(self._whole_at.pop(client, now), now)
        if len(self._whole_at) > self._clients:
            del self._whole_at[next(iter(self._whole_at))]
        return allowance

    def give_back(self, client: str) -> None:
        """Count one request less."""
        if client in self._whole_at:
            self._whole_at[client] -= self.quota.seconds / self.quota.requests


class EventLoopLag:
    """How late the event loop runs what is due, measured by a periodic timer.

    One late tick is a pause (a garbage collection, a laptop that slept). Several in a row are overload: new requests
    are then refused, which is cheap, until a tick is on time again.
    """

    #: Seconds between ticks.
    EVERY = 0.1
    _IN_A_ROW = 3

    def __init__(self, limit: float) -> None:
        """`limit` is in seconds; 0 means never overloaded."""
        self._limit = limit
        self._late = 0
        #: Lag of the last tick.
        self.seconds = 0.0

    @property
    def overloaded(self) -> bool:
        return self._late >= self._IN_A_ROW

    def tick(self, due: float, now: float) -> None:
        """Record that what was due at `due` ran at `now`."""
        self.seconds = max(now - due, 0.0)
        self._late = self._late + 1 if self._limit and self.seconds > self._limit else 0


class LagWatch:
    """Measures the lag of the running event loop."""

    def __init__(self, lag: EventLoopLag) -> None:
        self._lag = lag
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._arm()

    def stop(self) -> None:
        """Stop measuring; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        # Not the event loop's clock, which stands still during an iteration.
        due = time.monotonic() + EventLoopLag.EVERY
        self._timer = self._loop.call_later(EventLoopLag.EVERY, self._tick, due)

    def _tick(self, due: float) -> None:
        self._lag.tick(due, time.monotonic())
        self._arm()
