"""When a failed attempt runs again: a decision as a value. Whoever asks brings the time and the chance."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class RetryAt:
    when: datetime


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff: `base_seconds` after the first attempt, `factor` times as long after each further
    one, never over `cap_seconds`; then up to `jitter` (a share, 0.2 = ±20 %) earlier or later, so that tasks
    which failed together do not come back together."""

    base_seconds: float = 1.0
    factor: float = 2.0
    cap_seconds: float = 300.0
    jitter: float = 0.2

    def delay(self, attempt: int, chance: float) -> timedelta:
        """`attempt` counts from 1; `chance` is from 0 to 1, and 0.5 means no jitter."""
        # 2.0 ** 2000 overflows; the cap is reached long before the sixty-fourth attempt.
        exponential = self.base_seconds * self.factor ** min(max(attempt, 1) - 1, 64)
        spread = 1.0 + self.jitter * (2.0 * chance - 1.0)
        return timedelta(seconds=min(exponential, self.cap_seconds) * spread)


def after_failure(
    *, attempt: int, max_attempts: int, now: datetime, chance: float, policy: RetryPolicy
) -> RetryAt | GiveUp:
    """What follows attempt number `attempt` (from 1) that failed at `now`."""
    if attempt >= max_attempts:
        return GiveUp(f"attempt {attempt} of {max_attempts} failed")
    return RetryAt(now + policy.delay(attempt, chance))
