"""The time left for the current request: read from `X-Request-Timeout-Ms`, passed on to onward calls."""

from __future__ import annotations

import time
from contextvars import ContextVar, Token

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


class within:
    """Limit the body of the `with` to that many seconds (None: no limit of its own). A class, as in `request_id`."""

    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        ends_at = None if self._seconds is None else time.monotonic() + self._seconds
        self._token: Token[float | None] = _ends_at.set(ends_at)

    def __exit__(self, *_: object) -> None:
        _ends_at.reset(self._token)


def remaining(at_most: float) -> float:
    """The seconds left, `at_most` without a deadline; raises `DeadlineExceeded` when none are left."""
    ends_at = _ends_at.get()
    if ends_at is None:
        return at_most
    left = ends_at - time.monotonic()
    if left <= 0:
        raise DeadlineExceeded
    return min(left, at_most)
