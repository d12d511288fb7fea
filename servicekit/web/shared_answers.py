"""Answers that many ask for again and again, each made once for all of them.

Whoever takes an answer that is not new says so: `Cache-Control: max-age` of a request (RFC 9111 section 5.2.1.1). Who
does not gets one of their own.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Hashable, Sized
from typing import Generic, TypeVar

from servicekit.wire import deadline
from servicekit.wire.errors import DeadlineExceeded

T = TypeVar("T", bound=Sized)
#: Answers that are kept, and the bytes of the largest; beyond it the one that was first asked for longest ago is
#: forgotten.
MOST = 64
LARGEST = 256 * 1024
#: The oldest answer that anybody gets, in seconds.
MOST_SECONDS = 60
_PATIENCE_SECONDS = 5.0
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=([0-9]{1,9})(?:$|[,\s])", re.IGNORECASE)


def max_age(cache_control: str | None) -> int:
    """How many seconds old an answer may be by a request's Cache-Control, at most MOST_SECONDS; 0: it must be new."""
    found = _MAX_AGE.search(cache_control or "")
    return 0 if found is None else min(int(found[1]), MOST_SECONDS)


class SharedAnswers(Generic[T]):
    """Thread-safe: one thread makes an answer, and the others wait for it."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._kept: dict[Hashable, _Kept[T]] = {}

    def get(self, key: Hashable, seconds: int, make: Callable[[], T]) -> tuple[T, int]:
        """The answer to `key` that was begun no more than so many seconds ago, or else a new one; and its age in whole
        seconds. Raises what `make` does, and `DeadlineExceeded`."""
        with self._lock:
            kept = self._kept.setdefault(key, _Kept())
            if len(self._kept) > MOST:
                del self._kept[next(iter(self._kept))]
        if not kept.lock.acquire(timeout=deadline.remaining(_PATIENCE_SECONDS)):
            raise DeadlineExceeded
        try:
            now = self._monotonic()
            if kept.answer is None or now - kept.began > seconds:
                kept.answer, kept.began = None, now
                answer = make()
                if len(answer) > LARGEST:
                    return answer, 0
                kept.answer = answer
            return kept.answer, int(now - kept.began)
        finally:
            kept.lock.release()


class _Kept(Generic[T]):
    __slots__ = ("answer", "began", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.answer: T | None = None
        self.began = 0.0
