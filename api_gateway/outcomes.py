"""What an upstream's answer is. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, NoReturn

#: Media types that are not our envelope and pass as they are.
PASSING_MEDIA_TYPES = frozenset({"text/event-stream", "text/csv"})


@dataclass(slots=True)
class Envelope:
    """An answer in the one shape every service speaks: either data or an error."""

    success: bool
    data: Any = None
    error: dict[str, Any] | None = None

    @property
    def code(self) -> str | None:
        return None if self.error is None else str(self.error["code"])


@lru_cache(maxsize=64)
def media_type(content_type: bytes | None) -> str:
    """The media type in a Content-Type field without its parameters, in lower case; empty if there is none."""
    return (content_type or b"").partition(b";")[0].strip().lower().decode("latin-1")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Made once: json.loads makes a decoder anew for every call with arguments.
_decoder = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse_constant)
# `int` reads whole numbers of up to 4300 digits; the result of a task may hold longer ones.
_patient_decoder = json.JSONDecoder(parse_int=Decimal, parse_float=Decimal, parse_constant=_refuse_constant)


def read_envelope(status: int, body: bytes) -> Envelope | None:
    """The envelope in an answer, or None when it is not one or contradicts its status.

    Numbers with a point stay exact (Decimal).
    """
    try:
        try:
            parsed = _parsed(body, _decoder)
        except (json.JSONDecodeError, UnicodeError):
            return None
        except ValueError:
            parsed = _parsed(body, _patient_decoder)
    except (ValueError, ArithmeticError, RecursionError):
        return None
    if not isinstance(parsed, dict):
        return None
    if parsed.get("success") is True and "data" in parsed and status < 400:
        return Envelope(True, data=parsed["data"])
    error = parsed.get("error")
    if (
        parsed.get("success") is False
        and status >= 400
        and isinstance(error, dict)
        and isinstance(error.get("code"), str)
        and isinstance(error.get("message"), str)
    ):
        return Envelope(False, error=error)
    return None


def _parsed(body: bytes, decoder: json.JSONDecoder) -> Any:
    if body[:2] != b'{"':
        return decoder.decode(body.decode(json.detect_encoding(body), "surrogatepass"))
    # To `detect_encoding` it is UTF-8 too, and `decode` would look for spaces first.
    text = body.decode("utf-8", "surrogatepass")
    parsed, end = decoder.raw_decode(text)
    if end != len(text) and text[end:].strip(" \t\n\r"):
        raise json.JSONDecodeError("more after the value", text, end)
    return parsed


def has_no_body(method: str, status: int) -> bool:
    """Whether an answer carries no body whatever its fields say (RFC 9112 section 6.3)."""
    return method == "HEAD" or status in (204, 304)
