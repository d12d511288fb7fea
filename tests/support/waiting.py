"""Waiting for something to become true, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_LOOK_EVERY = 0.02


def eventually(look: Callable[[], T], *, timeout: float = 10.0, what: str = "") -> T:
    """Call `look` until its result is true, and return that; fail if it is not after `timeout` seconds.

    A look that began before tells nothing of that moment: there is always one that began later.
    """
    limit = time.monotonic() + timeout
    while True:
        is_last = time.monotonic() > limit
        seen = look()
        if seen:
            return seen
        if is_last:
            raise AssertionError(f"not within {timeout} s: {what or look!r}; last seen: {seen!r}")
        time.sleep(_LOOK_EVERY)
