"""How long to wait before the next try: longer after each failure in a row, and never in step with others."""

from __future__ import annotations

import random

#: 2.0 ** 2000 overflows; every limit is reached long before.
_MOST_DOUBLINGS = 64
#: Draws from 0.0 to 1.0. It has no state, which processes forked from one would share.
draw = random.SystemRandom().random


def jittered(seconds: float, share: float = 0.25, chance: float | None = None) -> float:
    """`seconds`, varied by up to `share` of them: `chance` 0.0 gives the least, 1.0 the most; None draws one."""
    return seconds * (1.0 + share * (2.0 * (draw() if chance is None else chance) - 1.0))


def backoff(failures: int, first: float, longest: float, factor: float = 2.0) -> float:
    """Seconds to wait after so many failures in a row (from 1), before jitter: `first`, then `factor` times as long
    after each, `longest` at most."""
    return min(first * factor ** min(max(failures, 1) - 1, _MOST_DOUBLINGS), longest)


class Backoff:
    """Counts a duty's failures in a row, and gives the jittered wait after each."""

    def __init__(self, first: float, longest: float) -> None:
        """Both are in seconds, before jitter."""
        self._first = first
        self._longest = longest
        self.failures = 0

    def next(self) -> float:
        """Count a failure; return the seconds until the next try."""
        self.failures += 1
        return jittered(backoff(self.failures, self._first, self._longest))

    def reset(self) -> None:
        """Call when a try succeeded."""
        self.failures = 0
