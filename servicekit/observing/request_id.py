"""The id that follows a request through every log line and onward call."""

from __future__ import annotations

import re
from contextvars import ContextVar, Token

from servicekit.process.ids import new_id_hex

REQUEST_ID = "X-Request-ID"
_SANE = re.compile(r"[A-Za-z0-9._:@/+=-]{1,128}")
_current: ContextVar[str] = ContextVar("request_id", default="")


def accept_or_make(value: str | None) -> str:
    """Keep a caller's id of 1 to 128 harmless characters; replace anything else by a new one."""
    return value if value and _SANE.fullmatch(value) else new_id_hex()


def current_request_id() -> str:
    """The current request's id, or an empty string outside any request."""
    return _current.get()


class use:
    """Set the request id within the `with`. A class: a generator would cost every request three times as much."""

    __slots__ = ("_token", "_value")

    def __init__(self, value: str) -> None:
        self._value = value

    def __enter__(self) -> str:
        self._token: Token[str] = _current.set(self._value)
        return self._value

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
