"""gunicorn's client connection, extended for a public server.

It refuses in the envelope what the HTTP parser rejects, sets a deadline for request heads and allows no WebSockets.
Plain requests (plain_head.py) bypass the parser, and answers reach the socket without ASGI.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from gunicorn.asgi import protocol as theirs

from servicekit.http_server import plain_head
from servicekit.http_server.application import RequestHandler, handler_of
from servicekit.http_server.plain_head import PlainRequest
from servicekit.http_server.request import NO_BODY, Fields, Request, RequestBody, RequestFields, field_lines
from servicekit.observing.logs import get_logger
from servicekit.observing.request_id import accept_or_make
from servicekit.wire.envelope import dump, failure
from servicekit.wire.errors import AppError, BadRequest, HeadersTooLarge, NotSupported, RequestTimeout, UriTooLong

#: How long a request head may take, in seconds: from the start of the connection or, on one that has served, from the
#: first byte.
HEAD_SECONDS = 10.0
#: How long a client may accept no bytes of its answer, in seconds; also the time for the rest after closing.
LINGER_SECONDS = 60.0
#: A body of at least this many bytes is not copied behind its head.
_LARGE = 64 * 1024

_ORIGIN = re.compile(rb"\n[Oo][Rr][Ii][Gg][Ii][Nn]:[ \t]*([\x21-\x7e]+)[ \t]*\r\n")

_REFUSALS: dict[int, type[AppError]] = {
    400: BadRequest,
    408: RequestTimeout,
    414: UriTooLong,
    431: HeadersTooLarge,
    501: NotSupported,
}

#: Reasons for statuses that gunicorn calls "Unknown".
_REASONS = {status.value: status.phrase for status in HTTPStatus if status not in theirs._REASON_PHRASES}

_log = get_logger(__name__)


class Ready:
    """The part of asyncio.Event that gunicorn's connection loop uses, for its single waiting task."""

    __slots__ = ("_is_set", "_loop", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        self._is_set = False

    def wait(self) -> asyncio.Future[None]:
        """Call only while it is not set."""
        self._waiter = self._loop.create_future()
        return self._waiter


class HttpConnection(theirs.ASGIProtocol):  # type: ignore[misc]  # gunicorn ships no types
    """A client connection; the application sees it as a `Client`."""

    address = ""
    scheme = "http"
    memo: Any = None
    _head_timer: asyncio.TimerHandle | None = None
    _linger_timer: asyncio.TimerHandle | None = None
    _taking_timer: asyncio.TimerHandle | None = None
    _received = False
    _keepalive_handle: asyncio.TimerHandle | None
    #: When the last answer was sent, on the event loop's clock; None while a request is pending.
    _idle_since: float | None = None
    #: The request being answered; below: whether its answer has begun, is chunked, is complete, and announced the end
    #: of the connection.
    _answering: Any = None
    has_answer = False
    _handler: RequestHandler | None = None
    _in_chunks = False
    _is_out = False
    _is_last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._request_ready = Ready(self.worker.loop)
        self._handler = handler_of(self.app)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.address = peer[0]
        self.worker.connections.add(self)
        self._head_timer = self.worker.loop.call_later(HEAD_SECONDS, self._head_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self.worker.connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received = True
        if self._handler is not None and self._awaiting_request and not self._request_ready.is_set():
            parser = self._callback_parser
            # Only a whole request, and only where a request may begin.
            if parser._state == "request_line" and not parser._buffer:
                request = plain_head.read_request(data)
                if request is not None:
                    self._take(request)
                    return
        super().data_received(data)

    def _take(self, request: PlainRequest) -> None:
        """Queue a plain request to be answered next. Bytes received meanwhile wait in the parser, which treats them as
        following a complete request."""
        self._cancel_head_timer()
        self._current_request = request
        self._callback_parser._state = "complete"
        self._callback_parser.is_complete = True
        self._request_ready.set()

    def _read_again(self, request: PlainRequest) -> Any:
        """The same request, parsed by gunicorn."""
        parser = self._callback_parser
        behind = parser.remaining()
        parser.reset()
        self._feed_callback_parser(request.raw + behind)
        return self._current_request

    async def _serve_http_request(self, request: Any, sockname: Any, peername: Any) -> bool:
        """Answer a request; returns whether the connection stays open."""
        if self._handler is None:
            return bool(await super()._serve_http_request(request, sockname, peername))
        if isinstance(request, PlainRequest):
            fields, body = request.fields, NO_BODY
        else:
            fields = RequestFields(request.headers_bytes)
            body = RequestBody(fields, self._body_receiver.receive)
        self._answering = request
        self.has_answer = self._is_out = False
        version = "1.1" if request.version == (1, 1) else "1.0"
        if await self._handler.answer(Request(request.method, request.uri, version, fields, body, self)):
            return self._is_out and not self._is_last
        if isinstance(request, PlainRequest):
            request = self._read_again(request)
        return bool(await super()._serve_http_request(request, sockname, peername))

    # The Client interface.

    def send(self, status: int, fields: Fields, body: bytes) -> None:
        head = self._answer_head(status, fields)
        if len(body) < _LARGE:
            self._safe_write(head + body)
        else:
            self._safe_write(head)
            self._safe_write(body)
        self._is_out = True

    def start_stream(self, status: int, fields: Fields) -> None:
        self._in_chunks = self._answering.version == (1, 1)
        if self._in_chunks:
            fields = [*fields, (b"transfer-encoding", b"chunked")]
        self._safe_write(self._answer_head(status, fields, ends_with_connection=not self._in_chunks))

    def send_piece(self, piece: bytes) -> None:
        if piece:
            self._safe_write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._in_chunks else piece)

    def end_stream(self) -> None:
        if self._in_chunks:
            self._safe_write(b"0\r\n\r\n")
        self._is_out = True

    @property
    def is_behind(self) -> bool:
        return bool(self._flow_control.write_paused)

    async def drain(self) -> None:
        """Wait until most was accepted; a client that accepts nothing for LINGER_SECONDS is cut off."""
        self._look_again(None)
        try:
            await self._flow_control.drain()
        finally:
            if self._taking_timer is not None:
                self._taking_timer.cancel()

    def _look_again(self, left: int | None) -> None:
        now = self.transport.get_write_buffer_size()
        if left is not None and now >= left:
            self.transport.abort()
            return
        self._taking_timer = self.worker.loop.call_later(LINGER_SECONDS, self._look_again, now)

    def _answer_head(self, status: int, fields: Fields, *, ends_with_connection: bool = False) -> bytes:
        """The head of the answer; determines whether it is the connection's last."""
        request = self._answering
        if self._body_receiver is not None:
            # The client gets its answer instead of 100 (Continue).
            self._body_receiver.expect_continue = False
        self.has_answer = True
        self._is_last = self._will_close(request, ends_with_connection)
        lines = theirs._get_cached_status_line(request.version, status, _REASONS.get(status)) + field_lines(fields)
        return b"%b%b%b\r\n" % (
            lines,
            b"" if b"\r\ndate: " in lines else theirs._get_cached_date_header(),
            b"Connection: close\r\n" if self._is_last else b"",
        )

    # Timers. The keep-alive timer is not reset for each request.

    def _arm_keepalive_timer(self) -> None:
        self._idle_since = self.worker.loop.time()
        if self._keepalive_handle is None:
            self._keepalive_handle = self.worker.loop.call_later(self._keepalive, self._keepalive_timeout)

    def _cancel_keepalive_timer(self) -> None:
        self._idle_since = None
        if self._conn_lost_handled:
            super()._cancel_keepalive_timer()

    def _keepalive_timeout(self) -> None:
        self._keepalive_handle = None
        if self._idle_since is None:
            return
        left = self._idle_since + self._keepalive - self.worker.loop.time()
        if left > 0:
            self._keepalive_handle = self.worker.loop.call_later(left, self._keepalive_timeout)
        else:
            super()._keepalive_timeout()

    def _feed_callback_parser(self, data: bytes) -> bool:
        # Also called with bytes received while the previous request was being answered.
        goes_on = bool(super()._feed_callback_parser(data))
        if goes_on and self._head_timer is None and not self._request_ready.is_set():
            self._head_timer = self.worker.loop.call_later(HEAD_SECONDS, self._head_late)
        if goes_on:
            self._maybe_resume_reading()
        return goes_on

    def _resume_reading(self) -> None:
        # gunicorn resumes reading after each answer, however many requests are queued.
        if self._reading_paused and self._http1_buffered() <= self._max_buffer_size // 2:
            super()._resume_reading()

    def close_if_idle(self, *, fresh: bool) -> None:
        """Close a connection with no request in progress: a kept one, or a `fresh` one that has sent nothing."""
        if self._awaiting_request and (not self._received if fresh else self.req_count > 1):
            self._close_transport()

    def _close_transport(self) -> None:
        super()._close_transport()
        # A client that accepts nothing would hold its answer in our memory forever.
        if self._linger_timer is None and not self._conn_lost_handled and self.transport.get_write_buffer_size():
            self._linger_timer = self.worker.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _on_headers_complete(self) -> bool:
        self._cancel_head_timer()
        return bool(super()._on_headers_complete())

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_late(self) -> None:
        self._head_timer = None
        if self._received:
            self._send_error_response(408, "")
        self._close_transport()

    def _is_websocket_upgrade(self, request: Any) -> bool:
        return False

    def _send_error_response(self, status: int, message: str, extra_headers: Sequence[tuple[str, str]] = ()) -> None:
        """Refuse in the envelope. `message` is the parser's and may quote the request: it only goes to the log."""
        error = _REFUSALS.get(status, AppError)()
        body = dump(failure(error))
        made = accept_or_make(None)
        fields: Fields = []
        if self._handler is not None:
            fields = self._handler.parser_refused(status, self._read_origin())
        _log.info("request_refused", status=status, code=error.code, cause=message, request_id=made)
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "Server: siteworks",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            f"X-Request-ID: {made}",
            *(f"{name}: {value}" for name, value in extra_headers),
            "Connection: close",
        ]
        self._safe_write("\r\n".join([*lines, ""]).encode("latin-1") + field_lines(fields) + b"\r\n" + body)

    def _read_origin(self) -> Fields:
        """The Origin of a head that the parser refuses, among the fields that it read or in the bytes behind them."""
        parser = self._callback_parser
        if parser is None:
            return []
        named = [field for field in parser._headers_list if field[0] == b"origin"]
        if named or parser._state not in ("request_line", "headers"):
            return named
        found = _ORIGIN.search(b"\n%b" % parser._buffer)
        return [] if found is None else [(b"origin", found[1])]
