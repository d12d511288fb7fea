"""Counts the failed and the slow calls of the last seconds. Pure: the caller passes the time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WindowTotals:
    calls: int
    failures: int
    slow: int

    @property
    def failure_rate(self) -> float:
        """Failed share of the calls, 0.0 to 1.0; 0.0 without calls."""
        return self.failures / self.calls if self.calls else 0.0

    @property
    def slow_share(self) -> float:
        """Slow share of the calls, 0.0 to 1.0; 0.0 without calls."""
        return self.slow / self.calls if self.calls else 0.0


class _Bucket:
    __slots__ = ("calls", "failures", "second", "slow")

    def __init__(self, second: int) -> None:
        self.second = second
        self.calls = 0
        self.failures = 0
        self.slow = 0


class SlidingWindow:
    """Counts in buckets of one second; the current second is the newest of `seconds` buckets.

    Not thread-safe: its owner holds a lock. Times are seconds on one monotonic clock. A time before the newest bucket
    counts in the newest, so the clock may be read before waiting for the lock.
    """

    def __init__(self, seconds: int = 10) -> None:
        if seconds < 1:
            raise ValueError("a window has at least one second")
        self._seconds = seconds
        self._buckets: deque[_Bucket] = deque()
        self._calls = 0
        self._failures = 0
        self._slow = 0

    def add(self, now: float, *, failed: bool = False, slow: bool = False) -> None:
        self._expire(now)
        second = int(now)
        if not self._buckets or self._buckets[-1].second < second:
            self._buckets.append(_Bucket(second))
        bucket = self._buckets[-1]
        bucket.calls += 1
        self._calls += 1
        if failed:
            bucket.failures += 1
            self._failures += 1
        if slow:
            bucket.slow += 1
            self._slow += 1

    def totals(self, now: float) -> WindowTotals:
        self._expire(now)
        return WindowTotals(self._calls, self._failures, self._slow)

    def clear(self) -> None:
        self._buckets.clear()
        self._calls = self._failures = self._slow = 0

    def _expire(self, now: float) -> None:
        oldest = int(now) - self._seconds + 1
        while self._buckets and self._buckets[0].second < oldest:
            gone = self._buckets.popleft()
            self._calls -= gone.calls
            self._failures -= gone.failures
            self._slow -= gone.slow
