"""The time left for the current request: read from `X-Request-Timeout-Ms`, passed on to onward calls."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from servicekit.wire.errors import DeadlineExceeded

TIMEOUT_MS = "X-Request-Timeout-Ms"
_MAX_DIGITS = 9
_ends_at: ContextVar[float | None] = ContextVar("deadline", default=None)


def seconds_from_header(value: str | None) -> float | None:
    """Parse the header's whole milliseconds; anything else counts as absent."""
    if value is None or not value.isascii() or not value.isdigit() or len(value) > _MAX_DIGITS:
        return None
    return int(value) / 1000


def shortened(value: str | None, at_most: float) -> float:
    """The seconds that a request may take: `at_most`, or less if its header says so; 0 if none are left."""
    asked = None if value is None else seconds_from_header(value)
    return at_most if asked is None or asked > at_most else asked


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Limit the body of the `with` to that many seconds (None: no limit of its own)."""
    token = _ends_at.set(None if seconds is None else time.monotonic() + seconds)
    try:
        yield
    finally:
        _ends_at.reset(token)


def remaining(at_most: float) -> float:
    """The seconds left, `at_most` without a deadline; raises `DeadlineExceeded` when none are left."""
    ends_at = _ends_at.get()
    if ends_at is None:
        return at_most
    left = ends_at - time.monotonic()
    if left <= 0:
        raise DeadlineExceeded
    return min(left, at_most)
