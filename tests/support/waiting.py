"""Waiting for something to become true, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_LOOK_EVERY = 0.02


def eventually(look: Callable[[], T], *, timeout: float = 10.0, what: str = "") -> T:
    """Call `look` until its result is true, and return that; fail after `timeout` seconds."""
    limit = time.monotonic() + timeout
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > limit:
            raise AssertionError(f"not within {timeout} s: {what or look!r}; last seen: {seen!r}")
        time.sleep(_LOOK_EVERY)
