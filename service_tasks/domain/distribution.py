"""Durations counted in buckets that are the same everywhere, so that counts can be added. No I/O, no clock."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

#: seconds: each upper bound is twice the one before it, from a millisecond to more than four hours and a half
BOUNDS = tuple(0.001 * 2.0**step for step in range(25))
#: the last bucket is for durations beyond every bound
BUCKETS = len(BOUNDS) + 1


class Distribution:
    """One thread adds, others may read."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        #: seconds
        self.total = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """Count a duration; a negative one, possible between two clocks, counts as 0."""
        if seconds < 0.0:
            seconds = 0.0
        self.counts[bisect_left(BOUNDS, seconds)] += times
        self.total += seconds * times


def quantile(counts: Sequence[int], share: float) -> float | None:
    """The duration that `share` of them do not exceed; None if there are none.

    They are taken as evenly spread within a bucket, as in Prometheus, so the result is right to a factor of two. Beyond
    the last bound it is that bound.
    """
    total = sum(counts)
    if not total:
        return None
    rank = share * total
    reached = 0.0
    low = 0.0
    for bound, count in zip(BOUNDS, counts, strict=False):
        if count and reached + count >= rank:
            return low + (bound - low) * max(0.0, rank - reached) / count
        reached += count
        low = bound
    return BOUNDS[-1]
