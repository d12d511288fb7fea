"""The lifecycle common to all requests, whether Flask, the gateway or the event streams answer them.

Each request gets its id (`request_id.use`); one that a foreign page may not send is refused (`BrowserRules.check`); an
error is answered in the envelope (`error_answer`); the end is counted and logged (`RequestRecord`). `ObservedHandler`
does all that for handlers on the event loop, `servicekit.web.app` for Flask.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Generic, NamedTuple, TypeVar

from servicekit.http_server.request import ClientLeft, Fields, Request
from servicekit.observing import request_id
from servicekit.observing.logs import RequestLog, get_logger
from servicekit.observing.metrics import UNMATCHED, Metrics
from servicekit.wire.browsers import OPEN_PATHS
from servicekit.wire.envelope import dump, failure, status_of
from servicekit.wire.errors import AppError, BadRequest

#: Status in log and metrics when the client left before its answer (nginx's).
CLIENT_LEFT = 499

_log = get_logger(__name__)


class ErrorAnswer(NamedTuple):
    """An error as sent; the sender adds Content-Length."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def fields(self) -> Fields:
        """The headers as the event-loop server takes them."""
        return [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in self.headers.items()]


def error_answer(error: AppError) -> ErrorAnswer:
    """Build the answer to an error: its status, its own header fields, and the envelope."""
    return ErrorAnswer(status_of(error), {"Content-Type": "application/json", **error.headers}, dump(failure(error)))


def log_failure(error: AppError) -> None:
    """Log an error unless it is the client's."""
    if status_of(error) >= 500:
        _log.warning("request_failed", code=error.code, cause=repr(error.__cause__))


def log_crash() -> None:
    """Log the exception being handled, a bug of ours, with its traceback."""
    _log.exception("request_crashed")


class RequestRecord:
    """Counts and logs the requests of one process. Thread-safe."""

    def __init__(self, metrics: Metrics, later: Callable[[Callable[[], None]], object] | None = None) -> None:
        """`later`: see `RequestLog`."""
        self._metrics = metrics
        self._log = RequestLog(__name__, later)

    def ended(
        self,
        method: str,
        route: str,
        status: int,
        seconds: float,
        timed: float | None = None,
        note: Callable[[dict[str, object]], None] = lambda _: None,
    ) -> None:
        """Count a request under its route's template, and log it with the values that `note` adds. The metric records
        `timed` seconds, if given, instead of the request's whole duration."""
        self._metrics.observe(method=method, route=route, status=status, seconds=seconds if timed is None else timed)
        # Machines ask every few seconds: worth a metric, not a log line.
        if route not in OPEN_PATHS:
            values = {"method": method, "route": route, "status": status, "ms": round(seconds * 1000, 1)}
            note(values)
            self._log("request", values)

    def parser_refused(self, status: int) -> None:
        """Count a request that the HTTP parser refused, without method, route or duration."""
        self._metrics.observe(method="", route=UNMATCHED, status=status, seconds=0.0)


class Exchange:
    """A request, and what is known of its answer so far."""

    __slots__ = ("began", "client", "request", "request_id", "route", "status", "timed")

    def __init__(self, request: Request) -> None:
        # Not the event loop's clock, which uvloop updates in whole milliseconds.
        self.began = time.perf_counter()
        self.request = request
        self.client = request.client
        self.request_id = request_id.accept_or_make(request.fields.get(b"x-request-id"))
        self.route = UNMATCHED
        self.status = CLIENT_LEFT
        #: Seconds to record in the metric, unless it is the whole duration.
        self.timed: float | None = None

    def note(self, values: dict[str, object]) -> None:
        """Add values to the log line."""

    def close(self) -> None:
        """Release what the request holds."""


E = TypeVar("E", bound=Exchange)


class ObservedHandler(ABC, Generic[E]):
    """A `RequestHandler` whose requests share the common lifecycle, each with an `Exchange` or a subclass of it."""

    #: Header fields of the answer to a bug of ours.
    CRASH_HEADERS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, record: RequestRecord) -> None:
        self._record = record

    @abstractmethod
    def begin(self, request: Request) -> E:
        """Create the exchange of a request."""

    @abstractmethod
    async def handle(self, exchange: E) -> bool:
        """Answer, and set route and status in the exchange. Raise an AppError to refuse; return False to leave the
        request to `Application.asgi`, which must count and log it."""

    @abstractmethod
    def refuse(self, exchange: E, error: AppError) -> None:
        """Send the answer to an error."""

    @abstractmethod
    def end_streams(self) -> None:
        """See `RequestHandler`."""

    def parser_refused(self, status: int, fields: Fields) -> Fields:
        self._record.parser_refused(status)
        return []

    async def answer(self, request: Request) -> bool:
        exchange = self.begin(request)
        with request_id.use(exchange.request_id):
            try:
                try:
                    try:
                        if not await self.handle(exchange):
                            exchange.status = 0
                            return False
                    except ClientLeft as error:
                        if not exchange.client.half_closed:
                            return True
                        raise BadRequest("The body ended early.") from error
                except Exception as error:
                    if not isinstance(error, AppError) or exchange.client.has_answer:
                        # A bug of ours: log it, and answer 500 or cut off the answer.
                        log_crash()
                        if exchange.client.has_answer:
                            return True
                        error = AppError(headers=self.CRASH_HEADERS)
                    self.refuse(exchange, error)
                return True
            finally:
                exchange.close()
                if exchange.status:
                    seconds = time.perf_counter() - exchange.began
                    self._record.ended(
                        request.method, exchange.route, exchange.status, seconds, exchange.timed, exchange.note
                    )
