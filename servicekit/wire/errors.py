"""The error tree. A leaf's docstring is its default message; its HTTP status is decided in envelope.py alone.

AppError                      500 internal_error
├── Invalid                   400 invalid_input
│   ├── BadRequest            400 bad_request
│   └── TlsRequired           400 tls_required
├── Unauthorized              401 unauthorized
├── Forbidden                 403 forbidden
│   └── ForeignPage           403 foreign_page
├── NotFound                  404 not_found
├── MethodNotAllowed          405 method_not_allowed
├── RequestTimeout            408 request_timeout
├── Conflict                  409 conflict
│   └── IdempotencyKeyReused  409 idempotency_key_reused
├── PreconditionFailed        412 precondition_failed
├── PreconditionRequired      428 precondition_required
├── TooLarge                  413 body_too_large
├── UriTooLong                414 uri_too_long
├── UnsupportedMediaType      415 unsupported_media_type
├── MisdirectedRequest        421 misdirected_request
├── TooManyRequests           429 too_many_requests
├── HeadersTooLarge           431 headers_too_large
├── NotSupported              501 not_supported
├── BadGateway                502 bad_upstream_answer
├── Unavailable               503 unavailable
│   ├── DatabaseUnavailable   503 database_unavailable
│   └── Overloaded            503 overloaded
│       └── DatabaseLocked    503 overloaded
└── DeadlineExceeded          504 deadline_exceeded
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field; `field` is a dotted path such as `items.0.quantity`."""

    field: str
    message: str


class AppError(Exception):
    """Something went wrong on our side.

    A fault of ours. The log has it under the request id: `request_crashed`, with a traceback.
    """

    code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str | None = None,
        *,
        details: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message if message is not None else (type(self).__doc__ or "").split("\n", 1)[0]
        self.details = tuple(details)
        self.headers = dict(headers or {})
        super().__init__(self.message)

    @classmethod
    def field(cls, name: str, message: str) -> Self:
        """Refuse one field by name."""
        return cls(f"{name}: {message}", details=[FieldError(name, message)])


class Invalid(AppError):
    """The request is not valid.

    A field, a parameter or a header field is wrong; `details` names each.
    """

    code = "invalid_input"


class InvalidJson(Invalid):
    """The body is not valid JSON.

    JSON is read strictly: no duplicate keys, no NaN, at most 32 levels.
    """

    code = "invalid_json"


class BadRequest(Invalid):
    """The request breaks the rules of HTTP."""

    code = "bad_request"


class TlsRequired(Invalid):
    """This port speaks TLS: ask it by https."""

    code = "tls_required"


class Unauthorized(AppError):
    """Say who you are first.

    The request has no access token, or the admin token or the services' own is missing or wrong.
    """

    code = "unauthorized"


class Forbidden(AppError):
    """You may not do this.

    The caller's role, or the scopes of their API key, do not allow it; or the routes are closed, since no token was set
    for them.
    """

    code = "forbidden"


class ForeignPage(Forbidden):
    """A page of another origin may not do this.

    A web page sent this through a browser; CORS_ORIGINS names the origins that may.
    """

    code = "foreign_page"


class NotFound(AppError):
    """There is nothing at this address."""

    code = "not_found"


class MethodNotAllowed(AppError):
    """This address does not take that method.

    The field `Allow` lists those that it takes.
    """

    code = "method_not_allowed"


class RequestTimeout(AppError):
    """The request did not arrive in time.

    A head may take 10 s, a body 30 s.
    """

    code = "request_timeout"


class Conflict(AppError):
    """The request does not fit the present state."""

    code = "conflict"


class IdempotencyKeyReused(Conflict):
    """This Idempotency-Key came before with a different request.

    Use a new key for each new request.
    """

    code = "idempotency_key_reused"


class PreconditionFailed(AppError):
    """The resource has changed since the ETag in If-Match, or that is a weak one; read it again and retry."""

    code = "precondition_failed"

    def __init__(
        self,
        message: str | None = None,
        *,
        details: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        present: Any = None,
    ) -> None:
        """`present` is the resource as it is now, where the answer shows it."""
        super().__init__(message, details=details, headers=headers)
        self.present = present


class PreconditionRequired(AppError):
    """Send the ETag of what you have seen in If-Match, lest this undoes what others have done since.

    Work items change only for those who have seen their present state (RFC 6585 section 3).
    """

    code = "precondition_required"


class TooLarge(AppError):
    """The body is larger than this address takes.

    Or than there is memory for: send it in parts.
    """

    code = "body_too_large"


class UriTooLong(AppError):
    """The address is too long.

    The first line of a request may have 8,000 bytes.
    """

    code = "uri_too_long"


class UnsupportedMediaType(AppError):
    """Send the body as application/json.

    Another media type, or a compressed body: `Content-Encoding` must be left out.
    """

    code = "unsupported_media_type"


class MisdirectedRequest(AppError):
    """This server is not known by the name in the Host field.

    ALLOWED_HOSTS lists the names, besides those of loopback.
    """

    code = "misdirected_request"


class TooManyRequests(AppError):
    """Too many requests; slow down.

    This client sent more than GATEWAY_RATE_LIMIT allows, or too many wrong tokens; `Retry-After` says when to go on.
    """

    code = "too_many_requests"


class HeadersTooLarge(AppError):
    """The header fields are too many or too large.

    100 fields of 8,190 bytes each are taken.
    """

    code = "headers_too_large"


class NotSupported(AppError):
    """This server does not support what the request asks for."""

    code = "not_supported"


class BadGateway(AppError):
    """A service behind this one gave an answer that cannot be used.

    It crashed in the middle of an answer, or something else listens on its port: see its log, by request id.
    """

    code = "bad_upstream_answer"


class Unavailable(AppError):
    """A part this answer needs is not available at the moment; try again."""

    code = "unavailable"

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after: float | None = None,
        details: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`retry_after` is in seconds; it is sent as a whole number, rounded up, at least 1 (RFC 9110 10.2.3)."""
        extra = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
        super().__init__(message, details=details, headers={**(headers or {}), **extra})


class DatabaseUnavailable(Unavailable):
    """The database is not available at the moment; try again.

    It is away, takes no writes (read-only, disk full), or has no connection left: see its log.
    """

    code = "database_unavailable"


class Overloaded(Unavailable):
    """This server has more to do than it can do at the moment; try again.

    Its event loop is late, it has no file, port or memory left for a request of this
    size, or somebody keeps locked for over half a second what the request needs.
    """

    code = "overloaded"

    def __init__(self, message: str | None = None, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, retry_after=1, headers=headers)


class DatabaseLocked(Overloaded):
    """Another transaction keeps the rows that this needs locked; try again."""


class DeadlineExceeded(AppError):
    """The time given for this request has passed.

    Whether a POST was done is open; Idempotency-Key makes it safe to repeat. See the service's log, and the
    database's slow statements.
    """

    code = "deadline_exceeded"
