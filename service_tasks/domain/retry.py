"""When a failed attempt runs again, as a value. Time and chance are arguments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from servicekit.process.backoff import backoff, jittered

MAX_RETRY_AFTER_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class RetryAt:
    when: datetime


@dataclass(frozen=True, slots=True)
class Exhausted:
    reason: str


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff: `base_seconds` after the first attempt, `factor` times as long after each further one, at
    most `cap_seconds`; then up to `jitter` (a share, 0.2 = ±20 %) earlier or later, so that tasks which failed together
    are not retried together."""

    base_seconds: float = 1.0
    factor: float = 2.0
    cap_seconds: float = 300.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not (math.isfinite(self.base_seconds) and self.base_seconds >= 0):
            raise ValueError("base_seconds must be 0 or more")
        if not (math.isfinite(self.factor) and self.factor >= 1):
            raise ValueError("factor must be 1 or more")
        if not (math.isfinite(self.cap_seconds) and self.cap_seconds >= 0):
            raise ValueError("cap_seconds must be 0 or more")
        if not 0 <= self.jitter <= 1:
            raise ValueError("jitter must be from 0 to 1")

    def delay(self, attempt: int, chance: float) -> timedelta:
        """`attempt` counts from 1; `chance` is from 0 to 1, and 0.5 means no jitter."""
        seconds = backoff(attempt, self.base_seconds, self.cap_seconds, self.factor)
        return timedelta(seconds=jittered(seconds, self.jitter, chance))

    def delay_asked_for(self, seconds: float, chance: float) -> timedelta:
        """The wait that a handler asked for with `RetryAfter`: never shorter, `jitter` longer at most, and
        neither negative nor over `MAX_RETRY_AFTER_SECONDS`. `cap_seconds` does not apply."""
        wanted = max(0.0, min(seconds, MAX_RETRY_AFTER_SECONDS))
        return timedelta(seconds=min(wanted * (1.0 + self.jitter * chance), MAX_RETRY_AFTER_SECONDS))


def after_failure(
    *,
    attempt: int,
    max_attempts: int,
    now: datetime,
    chance: float,
    policy: RetryPolicy,
    retry_after: float | None = None,
) -> RetryAt | Exhausted:
    """What follows the failure of attempt `attempt` (from 1) at `now`; `retry_after`, in seconds, is what its
    handler asked for."""
    if attempt >= max_attempts:
        return Exhausted(f"attempt {attempt} of {max_attempts} failed")
    if retry_after is not None:
        return RetryAt(now + policy.delay_asked_for(retry_after, chance))
    return RetryAt(now + policy.delay(attempt, chance))
