"""gunicorn's client connection, extended for a public server.

It refuses in the envelope what the HTTP parser rejects, sets a deadline for request heads and allows no WebSockets.
Plain requests (plain_head.py) bypass the parser, and answers reach the socket without ASGI.
"""

from __future__ import annotations

import asyncio
import fcntl
import re
import socket
import sys
import termios
import time
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from gunicorn.asgi import protocol as theirs

from servicekit.http_server import plain_head
from servicekit.http_server.application import RequestHandler, handler_of
from servicekit.http_server.plain_head import PlainRequest
from servicekit.http_server.request import (
    Fields,
    Request,
    RequestBody,
    RequestFields,
    field_lines,
    origin_form,
)
from servicekit.observing.logs import get_logger
from servicekit.observing.request_id import accept_or_make
from servicekit.process.hosts import read_address
from servicekit.wire.envelope import dump, failure
from servicekit.wire.errors import (
    AppError,
    BadRequest,
    HeadersTooLarge,
    NotSupported,
    RequestTimeout,
    TlsRequired,
    UriTooLong,
)

#: How long a request head may take, in seconds: from the start of the connection or, on one that has served, from the
#: first byte.
HEAD_SECONDS = 10.0
#: How long a client may accept no bytes of its answer, in seconds; also the time for the rest after closing.
LINGER_SECONDS = 60.0
#: Where Linux's tcp_info has tcpi_bytes_acked, and its end.
_BYTES_ACKED, _TCP_INFO_SIZE = 120, 128
#: How long the bytes of a client that is still sending after its last answer are discarded, in seconds; below: how long
#: it may be silent meanwhile. If it were cut off at once, it would get a reset, and might lose the answer (RFC 9112
#: section 9.6).
DISCARD_SECONDS = 10.0
SILENT_SECONDS = 2.0
#: Seconds between checks whether a client that closed its side has left.
_ASK_SECONDS = 0.5
#: The most chunks of a body: each takes the event loop some 10 µs, however short it is.
MAX_CHUNKS = 20_000
#: How long a plain head waits for its body, in seconds, before it goes to the full parser, which begins without: longer
#: than it takes a client to send the two one after the other.
BODY_SECONDS = 0.002
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
_date = (0, b"")


def date_line() -> bytes:
    """The Date field's line, made once a second. gunicorn's stands still after the clock was set back."""
    global _date
    second = int(time.time())
    if second != _date[0]:
        _date = (second, b"Date: %b\r\n" % formatdate(second, usegmt=True).encode("ascii"))
    return _date[1]


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
    _closed: bool
    memo: Any = None
    _head_timer: asyncio.TimerHandle | None = None
    _linger_timer: asyncio.TimerHandle | None = None
    _taking_timer: asyncio.TimerHandle | None = None
    _asking_timer: asyncio.TimerHandle | None = None
    #: A plain head that waits for its body.
    _held = b""
    _held_timer: asyncio.TimerHandle | None = None
    _received = False
    _keepalive_handle: asyncio.TimerHandle | None
    #: When the last answer was sent, on the event loop's clock; None while a request is pending.
    _idle_since: float | None = None
    #: The request being answered; below: whether its answer has begun, is chunked, has no end, is complete, and
    #: announced the end of the connection.
    _answering: Any = None
    has_answer = False
    _handler: RequestHandler | None = None
    #: The client sends nothing more, but may be waiting for answers; below: the parser refused what it sent.
    half_closed = False
    _refused = False
    #: Bytes discarded after the last answer, and until when, on the event loop's clock.
    _discarded = 0
    _discard_until = 0.0
    _chunks = 0
    _in_chunks = False
    _is_endless = False
    _is_out = False
    _is_last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._request_ready = Ready(self.worker.loop)
        self._handler = handler_of(self.app)
        if self._is_ssl:
            self.scheme = "https"
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.address = str(read_address(peer[0]) or "") if ":" in peer[0] else peer[0]
        self.worker.connections.add(self)
        self._head_timer = self.worker.loop.call_later(HEAD_SECONDS, self._head_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        for timer in (self._linger_timer, self._asking_timer, self._held_timer):
            if timer is not None:
                timer.cancel()
        self.worker.left(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._closed:
            self._discarded += len(data)
            return
        self._received = True
        if self._handler is not None and self._awaiting_request and not self._request_ready.is_set():
            parser = self._callback_parser
            # Only a whole request, and only where a request may begin.
            if parser._state == "request_line" and not parser._buffer:
                if self._held:
                    data = self._release() + data
                request = plain_head.read_request(data)
                if request is not None:
                    self._take(request)
                    return
                if plain_head.lacks_body(data):
                    self._hold(data)
                    return
        super().data_received(data)

    def _hold(self, head: bytes) -> None:
        self._held = head
        self._cancel_keepalive_timer()
        self._held_timer = self.worker.loop.call_later(BODY_SECONDS, self._go_on)

    def _release(self) -> bytes:
        held, self._held = self._held, b""
        if self._held_timer is not None:
            self._held_timer.cancel()
            self._held_timer = None
        return held

    def _go_on(self) -> None:
        """Let the full parser have a head whose body has not come."""
        if (held := self._release()) and not self._closed:
            super().data_received(held)

    def eof_received(self) -> bool:
        """Stay open until every whole request is answered: the client may have closed only its own side."""
        self._go_on()
        body = self._body_receiver
        midway = body is not None and not body._complete
        # It may not have begun with a request whose head has just come.
        unanswered = self._awaiting_request or (self._answering is not None and not self.has_answer)
        waits = unanswered if midway else self._request_ready.is_set()
        # TLS has no half of a connection.
        self.half_closed = waits and not self._closed and not self._is_endless and not self._is_ssl
        if self.half_closed and midway:
            # Its reader refuses it.
            body.signal_disconnect()
        elif self.half_closed:
            self._asking_timer = self.worker.loop.call_later(_ASK_SECONDS, self._ask, True)
        return self.half_closed

    def _ask(self, first: bool) -> None:
        """Find out whether a client that closed its side has left: whatever is sent to it then comes back as a reset.

        Any client discards a 100 (Continue) that it does not expect (RFC 9110 section 15.2.1).
        """
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        request = self._answering
        if first and request is not None and not self.has_answer and request.version == (1, 1):
            self._safe_write(b"HTTP/1.1 100 Continue\r\n\r\n")
            first = False
        self._asking_timer = self.worker.loop.call_later(_ASK_SECONDS, self._ask, first)

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
        self._answering = request
        self.has_answer = self._is_out = self._is_endless = False
        if self._handler is None:
            return bool(await super()._serve_http_request(request, sockname, peername))
        if isinstance(request, PlainRequest):
            fields, body = request.fields, request.body
        else:
            fields = RequestFields(request.headers_bytes)
            body = RequestBody(fields, self._body_receiver.receive)
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

    def start_stream(self, status: int, fields: Fields, *, endless: bool = False) -> None:
        self._is_endless = endless
        has_length = any(name == b"content-length" for name, _ in fields)
        self._in_chunks = not has_length and self._answering.version == (1, 1)
        if self._in_chunks:
            fields = [*fields, (b"transfer-encoding", b"chunked")]
        until_close = not (has_length or self._in_chunks)
        self._safe_write(self._answer_head(status, fields, ends_with_connection=until_close))

    def send_piece(self, piece: bytes | memoryview) -> None:
        if piece:
            self._safe_write(b"".join((b"%x\r\n" % len(piece), piece, b"\r\n")) if self._in_chunks else piece)

    def end_stream(self) -> None:
        if self._in_chunks:
            self._safe_write(b"0\r\n\r\n")
        self._is_out = True

    def cut_off(self) -> None:
        self.transport.abort()

    @property
    def unsent(self) -> int:
        return int(self.transport.get_write_buffer_size())

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

    def _look_again(self, taken: int | None) -> None:
        now = self._taken()
        if taken is not None and now <= taken:
            self.transport.abort()
            return
        self._taking_timer = self.worker.loop.call_later(LINGER_SECONDS, self._look_again, now)

    def _taken(self) -> int:
        """Grows while the client takes what was sent: what its side has acknowledged, where the kernel tells.

        A buffer of ours may stand still meanwhile, with megabytes of the kernel's, or TLS's own, ahead of it.
        """
        try:
            of_kernel = self.transport.get_extra_info("socket")
            info = of_kernel.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
            return int.from_bytes(info[_BYTES_ACKED:_TCP_INFO_SIZE], sys.byteorder)
        except (AttributeError, OSError):
            return -int(self.transport.get_write_buffer_size())

    def _answer_head(self, status: int, fields: Fields, *, ends_with_connection: bool = False) -> bytes:
        """The head of the answer; determines whether it is the connection's last."""
        request = self._answering
        if self._body_receiver is not None:
            # The client gets its answer instead of 100 (Continue).
            self._body_receiver.expect_continue = False
        self.has_answer = True
        self._is_last = self._will_close(request, ends_with_connection)
        lines = theirs._get_cached_status_line(request.version, status, _REASONS.get(status)) + field_lines(fields)
        if self._is_last:
            connection = b"Connection: close\r\n"
        else:
            # HTTP/1.0 keeps a connection only by agreement.
            connection = b"Connection: keep-alive\r\n" if request.version == (1, 0) else b""
        return b"%b%b%b\r\n" % (lines, b"" if b"\r\ndate: " in lines else date_line(), connection)

    def _will_close(self, request: Any, response_requires_close: bool) -> bool:
        # What has not arrived of a body by the time of its answer may never come.
        body = self._body_receiver
        requires = response_requires_close or (body is not None and not body._complete)
        return bool(super()._will_close(request, requires))

    def _send_response_start(self, status: int, headers: Any, request: Any, close: bool = False) -> None:
        self.has_answer = True
        if not close and request.version == (1, 0):
            headers = [*headers, (b"Connection", b"keep-alive")]
        super()._send_response_start(status, headers, request, close)

    # Timers. The keep-alive timer is not reset for each request.

    def _arm_keepalive_timer(self) -> None:
        if self.half_closed:
            self._close_transport()
            return
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
        try:
            goes_on = bool(super()._feed_callback_parser(data))
        except ValueError as error:  # gunicorn takes any number of digits for a length, Python only 4,300
            self._send_error_response(400, str(error))
            self._close_transport()
            return False
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
        if self._awaiting_request and not self._held and (not self._received if fresh else self.req_count > 1):
            self._close_transport()

    def _close_transport(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._cancel_head_timer()
        body = self._body_receiver
        is_midway = body is not None and not body._complete
        if is_midway:
            body.signal_disconnect()
        may_send = self._refused or is_midway or self._callback_parser._buffer
        if may_send and not self.half_closed and not self.transport.is_closing():
            if self.transport.can_write_eof():  # TLS cannot
                self.transport.write_eof()
            super()._resume_reading()
            self._discard_until = self.worker.loop.time() + DISCARD_SECONDS
            self._linger_timer = self.worker.loop.call_later(SILENT_SECONDS, self._linger, 0)
        else:
            self._hang_up()

    def _linger(self, discarded: int) -> None:
        if self._discarded == discarded or self.worker.loop.time() >= self._discard_until:
            self._hang_up()
        else:
            self._linger_timer = self.worker.loop.call_later(SILENT_SECONDS, self._linger, self._discarded)

    def _hang_up(self) -> None:
        if self._is_ssl and self._queued() >= _LARGE:
            # Behind it more may wait that is encrypted, and that close would give no more than its shutdown's time.
            now = self.worker.loop.time()
            self._linger_timer = self.worker.loop.call_later(_ASK_SECONDS, self._wait_to_hang_up, self._taken(), now)
            return
        self.transport.close()
        # A client that accepts nothing would hold its answer in our memory forever.
        if not self._conn_lost_handled and self.transport.get_write_buffer_size():
            self._linger_timer = self.worker.loop.call_later(LINGER_SECONDS, self._see_out, self._taken())

    def _wait_to_hang_up(self, taken: int, since: float) -> None:
        now, taken_now = self.worker.loop.time(), self._taken()
        if taken_now > taken:
            since = now
        if now - since >= LINGER_SECONDS:
            self.transport.abort()
        elif self._queued() < _LARGE:
            self._hang_up()
        else:
            self._linger_timer = self.worker.loop.call_later(_ASK_SECONDS, self._wait_to_hang_up, taken_now, since)

    def _queued(self) -> int:
        """How many bytes the kernel still holds for the client; 0 where it does not tell."""
        try:
            number = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
            return int.from_bytes(number, sys.byteorder)
        except (AttributeError, OSError):
            return 0

    def _see_out(self, taken: int) -> None:
        now = self._taken()
        if now <= taken:
            self.transport.abort()
        else:
            self._linger_timer = self.worker.loop.call_later(LINGER_SECONDS, self._see_out, now)

    def _on_body(self, chunk: bytes) -> None:
        if self._callback_parser.is_chunked:
            self._chunks += 1
            if self._chunks > MAX_CHUNKS:
                raise theirs.ParseError("too many chunks")
        super()._on_body(chunk)

    def _on_headers_complete(self) -> bool:
        self._cancel_head_timer()
        self._chunks = 0
        parser = self._callback_parser
        if parser.is_chunked:
            codings = [value.lower() for name, value in parser.headers if name == b"transfer-encoding"]
            if codings != [b"chunked"]:
                # gunicorn would undo the chunks, and forget what they hold.
                raise theirs.UnsupportedTransferCoding("another coding than chunked")
        if parser.path[:1] != b"/":
            parser.path, parser.headers = origin_form(parser.path, parser.headers, parser.http_version)
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
        self._refuse(_REFUSALS.get(status, AppError)(), status, message, extra_headers)

    def _refuse(self, error: AppError, status: int, cause: str, extra_headers: Sequence[tuple[str, str]] = ()) -> None:
        self._refused = True
        body = dump(failure(error))
        made = accept_or_make(None)
        fields: Fields = []
        if self._handler is not None:
            fields = self._handler.parser_refused(status, self._read_origin())
        _log.info("request_refused", status=status, code=error.code, cause=cause, request_id=made)
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "Server: siteworks",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            f"X-Request-ID: {made}",
            date_line().decode("ascii").rstrip(),
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


class PlainConnection(HttpConnection):
    """Somebody who speaks plain HTTP where TLS is spoken: whatever they ask, that is the answer."""

    def data_received(self, data: bytes) -> None:
        if not self._closed:
            self._refuse(TlsRequired(), 400, "plain HTTP")
            self._close_transport()
