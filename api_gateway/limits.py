"""How much of one upstream's trouble the gateway takes on: a concurrency limit and a retry budget."""

from __future__ import annotations

import asyncio
from collections import deque


class LineFull(Exception):
    """The waiting line is full, or the place did not come in time."""


class Bulkhead:
    """At most `places` exchanges at once; at most `line` more wait, first come first served.

    Belongs to one event loop.
    """

    def __init__(self, *, places: int = 128, line: int = 2048) -> None:
        if places < 1 or line < 0:
            raise ValueError("a bulkhead has at least one place")
        self.places = places
        self.line = line
        self._taken = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def taken(self) -> int:
        return self._taken

    @property
    def waiting(self) -> int:
        return sum(1 for waiter in self._waiters if not waiter.done())

    def try_enter(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if self._taken < self.places and not self._waiters:
            self._taken += 1
            return True
        return False

    async def enter(self, seconds: float) -> None:
        """Take a place, waiting up to `seconds`; LineFull otherwise."""
        if self.try_enter():
            return
        if len(self._waiters) >= self.line:
            raise LineFull
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            self._give_back(waiter)
            raise LineFull from None
        except BaseException:
            self._give_back(waiter)
            raise

    def leave(self) -> None:
        """Give the place back; the longest waiting takes it over."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._taken -= 1

    def _give_back(self, waiter: asyncio.Future[None]) -> None:
        if waiter.done() and not waiter.cancelled():
            self.leave()
            return
        try:
            self._waiters.remove(waiter)
        except ValueError:
            return


class RetryBudget:
    """Retries may be `share` of the calls, plus a small reserve so that quiet services are healed too.

    When everything fails, retries add at most that share to the load (SRE book, "Addressing Cascading Failures").
    """

    def __init__(self, *, share: float = 0.1, reserve: float = 10.0, ceiling: float = 100.0) -> None:
        self._share = share
        self._ceiling = ceiling
        self._tokens = reserve

    def called(self) -> None:
        """Count one call, which pays its share in."""
        self._tokens = min(self._tokens + self._share, self._ceiling)

    def try_retry(self) -> bool:
        """Take one retry out, if there is one."""
        if self._tokens >= 1:
            self._tokens -= 1
            return True
        return False
