"""The id that follows one request through every log line and onward call."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from servicekit.ids import new_id

HEADER = "X-Request-ID"
_SANE = re.compile(r"[A-Za-z0-9._:@/+=-]{1,128}")
_current: ContextVar[str] = ContextVar("request_id", default="")


def accept_or_make(value: str | None) -> str:
    """Keep a caller's id of 1 to 128 harmless characters; make a new one instead of anything else."""
    return value if value and _SANE.fullmatch(value) else new_id().hex


def current_request_id() -> str:
    """Give the id in force here, or an empty string outside any request."""
    return _current.get()


@contextmanager
def use(value: str) -> Iterator[str]:
    """Put an id in force for the body."""
    token = _current.set(value)
    try:
        yield value
    finally:
        _current.reset(token)
