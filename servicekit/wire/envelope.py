"""The one shape of every JSON answer, written and parsed, and the status of each error class (RFC 9110 section 15)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import simplejson
from pydantic import BaseModel

from servicekit.process.clock import rfc3339
from servicekit.wire.errors import (
    AppError,
    BadGateway,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    HeadersTooLarge,
    Invalid,
    InvalidJson,
    MethodNotAllowed,
    MisdirectedRequest,
    NotFound,
    NotSupported,
    PreconditionFailed,
    PreconditionRequired,
    RequestTimeout,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    UriTooLong,
)
from servicekit.wire.json_reader import read_any_json, read_stored

STATUS_OF: Mapping[type[AppError], int] = {
    Invalid: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    MethodNotAllowed: 405,
    RequestTimeout: 408,
    Conflict: 409,
    PreconditionFailed: 412,
    TooLarge: 413,
    UriTooLong: 414,
    UnsupportedMediaType: 415,
    MisdirectedRequest: 421,
    PreconditionRequired: 428,
    TooManyRequests: 429,
    HeadersTooLarge: 431,
    NotSupported: 501,
    BadGateway: 502,
    Unavailable: 503,
    DeadlineExceeded: 504,
    AppError: 500,
}


def status_of(error: AppError | type[AppError]) -> int:
    """The HTTP status of an error: that of its nearest class in the table."""
    cls = error if isinstance(error, type) else type(error)
    return next(STATUS_OF[base] for base in cls.__mro__ if base in STATUS_OF)


def success(data: Any) -> dict[str, Any]:
    """Wrap data."""
    return {"success": True, "data": data}


def success_bytes(data: bytes) -> bytes:
    """`dump(success(…))` of data that is written already."""
    return b'{"success":true,"data":%b}' % data


def failure(error: AppError) -> dict[str, Any]:
    """Wrap an error; `details` and `present` appear only if there are any."""
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.details:
        body["details"] = [{"field": item.field, "message": item.message} for item in error.details]
    if isinstance(error, PreconditionFailed) and error.present is not None:
        body["present"] = error.present
    return {"success": False, "error": body}


class Written(simplejson.RawJSON):
    """A value that already is JSON text and is written unchanged, without being parsed. Equal to its value."""

    def __getitem__(self, name: str) -> Written:
        """A field of an object, unread too; raises KeyError, or TypeError if it is no object."""
        try:
            return Written(bytes(_FIELDS.decode(self.encoded_json)[name]).decode("utf-8"))
        except msgspec.ValidationError as exc:
            raise TypeError("not an object") from exc

    def __eq__(self, other: object) -> bool:
        return bool(read_stored(self.encoded_json) == other)

    __hash__ = None  # type: ignore[assignment]  # unhashable, as a list may be


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"no JSON form for {type(value).__name__}")


def dump(value: Any) -> bytes:
    """Write strict JSON in UTF-8: Decimals stay exact, NaN is refused, text is not escaped to ASCII."""
    text: str = simplejson.dumps(
        value,
        default=_plain,
        use_decimal=True,
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
        namedtuple_as_object=False,
        tuple_as_array=True,
    )
    return text.encode("utf-8")


class NotAnEnvelope(Exception):
    """An answer does not have the one shape, or contradicts its status. The text says how, without quoting it."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a service answered: its status, and either data or an error."""

    status: int
    data: Any = None
    #: Has `code` and `message`, and perhaps `details`.
    error: Mapping[str, Any] | None = None

    @property
    def code(self) -> str | None:
        """The error's code; None for a good answer."""
        return None if self.error is None else self.error["code"]

    @property
    def message(self) -> str:
        return "" if self.error is None else self.error["message"]


def read_envelope(status: int, body: bytes) -> Envelope:
    """Parse another service's answer, with exact numbers; raises NotAnEnvelope."""
    try:
        answer = read_any_json(body)
    except InvalidJson as exc:
        raise NotAnEnvelope("it is not JSON") from exc
    match answer:
        case {"success": True, "data": data} if status < 300:
            return Envelope(status, data)
        case {"success": False, "error": {"code": str(), "message": str()} as error} if status >= 400:
            return Envelope(status, error=error)
    raise NotAnEnvelope("it is not an envelope that fits its status")


class _Error(msgspec.Struct):
    code: str
    message: str


class _Parts(msgspec.Struct):
    success: bool
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | msgspec.UnsetType = msgspec.UNSET


#: How a good answer begins, so that the rest may be passed on before it is here.
BEGINNING = re.compile(rb'\s*{\s*"success"\s*:\s*true\s*,\s*"data"\s*:')
#: Check the syntax of all, and build nothing of `data` or below a field: twenty times as fast as building it.
_ENVELOPE = msgspec.json.Decoder(_Parts)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _parts_of(status: int, body: bytes) -> _Parts | None:
    """An envelope that fits its status, with its data unread. None if it is none, or one that msgspec refuses and
    Python reads: nested deeper, or with half of a surrogate pair."""
    try:
        # msgspec does not look for broken UTF-8 in what it skips.
        body.isascii() or body.decode("utf-8")
        parts = _ENVELOPE.decode(body)
    except (ValueError, RecursionError):
        return None
    if parts.success:
        return parts if status < 300 and parts.data is not msgspec.UNSET else None
    return parts if status >= 400 and parts.error is not msgspec.UNSET else None


def code_of(status: int, body: bytes) -> str | None:
    """Check an answer that is passed on unchanged: the code of an error, None for data; raises NotAnEnvelope."""
    parts = _parts_of(status, body)
    if parts is None:
        return read_envelope(status, body).code
    return None if parts.success or not parts.error else parts.error.code


def scan_envelope(status: int, body: bytes) -> Envelope:
    """As `read_envelope`, but good data are `Written`: checked, and not built."""
    parts = _parts_of(status, body) if status < 300 else None
    if parts is None or parts.data is msgspec.UNSET:
        return read_envelope(status, body)
    return Envelope(status, Written(bytes(parts.data).decode("utf-8")))
