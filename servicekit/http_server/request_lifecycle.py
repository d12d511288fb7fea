"""What becomes of every request, whether Flask, the gateway or the event streams answer it.

Its id is put in force (`request_id.use`), a page that may not send it is refused (`BrowserRules.check`), an error is
answered in the envelope (`error_answer`), and its end is counted and logged (`RequestRecord`). `ObservedHandler` does
all that for handlers on the event loop, `servicekit.web.app` for Flask.
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
from servicekit.wire.errors import AppError

#: The status in log and metrics of a client that left before its answer (nginx's).
CLIENT_LEFT = 499

_log = get_logger(__name__)


class ErrorAnswer(NamedTuple):
    """An error as it is sent; Content-Length is up to the sender."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def fields(self) -> Fields:
        """The headers in the form of the event-loop server."""
        return [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in self.headers.items()]


def error_answer(error: AppError) -> ErrorAnswer:
    """Give the answer to an error: its status, its own header fields, and the envelope."""
    return ErrorAnswer(status_of(error), {"Content-Type": "application/json", **error.headers}, dump(failure(error)))


def log_failure(error: AppError) -> None:
    """Log an error that is not the client's."""
    if status_of(error) >= 500:
        _log.warning("request_failed", code=error.code, cause=repr(error.__cause__))


def log_crash() -> None:
    """Log the exception being handled, a fault of ours, with its traceback."""
    _log.exception("request_crashed")


class RequestRecord:
    """Counts and logs the requests of one process. Thread-safe."""

    def __init__(self, metrics: Metrics, later: Callable[[Callable[[], None]], object] | None = None) -> None:
        """`later` is that of `RequestLog`."""
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
        """Count a request under its route's template, and log it with what `note` adds to the values. The metric has
        `timed` seconds, if given, instead of all that the request took."""
        self._metrics.observe(method=method, route=route, status=status, seconds=seconds if timed is None else timed)
        # Asked every few seconds by machines: worth a metric, not a line.
        if route not in OPEN_PATHS:
            values = {"method": method, "route": route, "status": status, "ms": round(seconds * 1000, 1)}
            note(values)
            self._log("request", values)

    def parser_refused(self, status: int) -> None:
        """Count a request that the HTTP parser refused: nobody knows its method or route, and it took no time."""
        self._metrics.observe(method="", route=UNMATCHED, status=status, seconds=0.0)


class Exchange:
    """One request, and what is known of its answer so far."""

    __slots__ = ("began", "client", "request", "request_id", "route", "status", "timed")

    def __init__(self, request: Request) -> None:
        # Not the event loop's clock, which uvloop moves in whole milliseconds.
        self.began = time.perf_counter()
        self.request = request
        self.client = request.client
        self.request_id = request_id.accept_or_make(request.fields.get(b"x-request-id"))
        self.route = UNMATCHED
        self.status = CLIENT_LEFT
        #: What the metric has for its seconds, unless that is all it took.
        self.timed: float | None = None

    def note(self, values: dict[str, object]) -> None:
        """Add what the log line says besides."""

    def close(self) -> None:
        """Give back what was taken for it."""


E = TypeVar("E", bound=Exchange)


class ObservedHandler(ABC, Generic[E]):
    """A `RequestHandler` whose requests have the common lifecycle, each with an `Exchange` or a subclass of it."""

    #: Header fields of the answer to a fault of ours.
    CRASH_HEADERS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, record: RequestRecord) -> None:
        self._record = record

    @abstractmethod
    def begin(self, request: Request) -> E:
        """Make the exchange of a request."""

    @abstractmethod
    async def handle(self, exchange: E) -> bool:
        """Answer, and note route and status in the exchange. Raise an AppError to refuse; False leaves the request to
        `Application.asgi`, whose task it is to count and log it."""

    @abstractmethod
    def refuse(self, exchange: E, error: AppError) -> None:
        """Send the answer to an error."""

    @abstractmethod
    def end_streams(self) -> None:
        """As in `RequestHandler`."""

    def parser_refused(self, status: int) -> None:
        self._record.parser_refused(status)

    async def answer(self, request: Request) -> bool:
        exchange = self.begin(request)
        with request_id.use(exchange.request_id):
            try:
                try:
                    if not await self.handle(exchange):
                        exchange.status = 0
                        return False
                except ClientLeft:
                    return True
                except Exception as error:
                    if not isinstance(error, AppError) or exchange.client.has_answer:
                        # A fault of ours: it must reach the log, and the client as a 500 or an answer that is cut off.
                        log_crash()
                        if exchange.client.has_answer:
                            return True
                        error = AppError(headers=self.CRASH_HEADERS)
                    self.refuse(exchange, error)
                if request.body.present:
                    await request.body.discard()
                return True
            finally:
                exchange.close()
                if exchange.status:
                    seconds = time.perf_counter() - exchange.began
                    self._record.ended(
                        request.method, exchange.route, exchange.status, seconds, exchange.timed, exchange.note
                    )
