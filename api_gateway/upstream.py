"""One HTTP/1.1 client per upstream, on httptools: a pool of connections, each with one exchange at a time.

It sends the target and fields byte for byte, keeps no cookies, follows no redirects, decodes nothing and reads no
environment. The caller sets the deadlines, and closes an answer that it abandons.

A plain answer (plain_head.py) that arrives in one piece is read directly; httptools parses all others.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

from api_gateway import happy_eyeballs
from api_gateway.headers import get
from servicekit.http_server import plain_head
from servicekit.http_server.request import Fields
from servicekit.observing.shortage import is_shortage
from servicekit.wire.memory import SMALL, Account
from servicekit.wire.resolver import HostAddress, ResolveHost, Resolver, system_resolve

#: Idle connections older than this are not reused, in seconds: well below the services' own limit (75 s).
IDLE_SECONDS = 30.0
MAX_IDLE = 256
#: Concurrent connection attempts to one upstream: enough that none of a thousand simultaneous requests spends its
#: connect limit queueing.
MAX_CONNECTING = 64
MAX_FIELDS = 200
MAX_FIELD_BYTES = 64 * 1024
#: Seconds between checks for attempts past their deadline, and so the most that a timeout may be late.
EXPIRY_CHECK_SECONDS = 0.01
#: The least a kernel buffers for a connection, in bytes: a smaller request leaves whole if nothing else is unsent.
SMALLEST_SEND_BUFFER = 4096
#: Received bytes that may await the reader before the connection stops receiving.
HIGH_WATER = SMALL
#: The most received at a time, in bytes: a head, and enough of a large answer to begin it; below: of a body that is
#: poured, little enough to be in the processor's cache still when it is sent.
_READ = SMALL + 16 * 1024
_READ_POURED = 256 * 1024
#: Bytes poured before everybody else gets a turn on the event loop.
_POURED_AT_ONCE = 768 * 1024

#: Received bytes, and who takes them: a view changes after the call, unless that returns that it is still needed.
Piece = bytes | memoryview
Take = Callable[[Piece], bool]


class UpstreamError(Exception):
    """An exchange failed; the subclass tells how far it got.

    `proxy_error` is the error type of RFC 9209 section 2.3.
    """

    proxy_error = "proxy_internal_error"


class ConnectFailed(UpstreamError):
    """No connection was made: the request was not sent."""

    proxy_error = "destination_unavailable"

    def __init__(self, text: str, proxy_error: str = proxy_error) -> None:
        super().__init__(text)
        self.proxy_error = proxy_error


class ConnectionLost(UpstreamError):
    """The connection ended before any byte of an answer."""

    proxy_error = "connection_terminated"

    def __init__(self, reused: bool) -> None:
        super().__init__("the connection ended before any byte of an answer")
        #: The connection had served before: the upstream may just have closed it as idle.
        self.reused = reused


class BrokenAnswer(UpstreamError):
    """The answer breaks HTTP, ends too early or is too large."""

    proxy_error = "http_protocol_error"

    def __init__(self, text: str, proxy_error: str = proxy_error) -> None:
        super().__init__(text)
        self.proxy_error = proxy_error


@dataclass(frozen=True, slots=True)
class Origin:
    host: str
    port: int
    tls: bool
    #: The Host field, and the path prepended to every target (usually "").
    authority: bytes
    prefix: bytes

    @classmethod
    def parse(cls, url: str) -> Origin:
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        host = parts.hostname or ""
        port = parts.port or (443 if tls else 80)
        shown = f"[{host}]" if ":" in host else host
        authority = shown if port == (443 if tls else 80) else f"{shown}:{port}"
        return cls(
            host,
            port,
            tls,
            authority.encode("idna" if not shown.isascii() else "ascii"),
            parts.path.rstrip("/").encode(),
        )

    @property
    def text(self) -> bytes:
        return (b"https://" if self.tls else b"http://") + self.authority


class UpstreamAnswer:
    """The head of an answer, and its body as it arrives. `close` it unless it was read to the end."""

    __slots__ = ("_attempt", "fields", "on_close", "status")

    def __init__(self, attempt: _Attempt) -> None:
        self.status = attempt.status
        self.fields = attempt.fields
        #: Called once, by `close`.
        self.on_close: Callable[[], None] | None = None
        self._attempt = attempt

    def take(self, limit: int) -> bytes | None:
        """The whole body if it has arrived and is at most `limit` bytes; else None."""
        return self._attempt.take() if self._attempt.held_up_to(limit) else None

    async def beginning(self, size: int) -> bytes:
        """More than the first `size` bytes, or all there are, left for `read` or `pieces` to give again. Raises as
        `read` does."""
        attempt, begun = self._attempt, b""
        while len(begun) <= size and (piece := await attempt.next_piece()) is not None:
            begun += piece
        attempt.put_back(begun)
        return begun

    async def read(self, limit: int, account: Account | None = None) -> bytes:
        """The whole body, counted in `account`. Raises BrokenAnswer if it is cut off or larger than `limit` bytes,
        TimeoutError, or Overloaded."""
        pieces: list[bytes] = []
        size = counted = 0
        announced = get(self.fields, b"content-length") or b""
        if account is not None and announced.isdigit():
            counted = min(int(announced), limit)
            account.take(counted)
        while True:
            piece = await self._attempt.next_piece()
            if piece is None:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            size += len(piece)
            if size > limit:
                raise BrokenAnswer(f"more than {limit} bytes", "http_response_body_size")
            if account is not None and size > counted:
                account.take(size - counted)
                counted = size
            pieces.append(piece)

    def expire_at(self, when: float | None) -> None:
        """Fail with TimeoutError at `when`, on the event loop's clock, unless the body is complete by then."""
        self._attempt.expire_at(when)

    async def pour(self, take: Take) -> None:
        """Hand over the whole body, each piece as soon as it is received. Raises what `take` raises, TimeoutError, or
        BrokenAnswer if the body is cut off."""
        await self._attempt.pour(take)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body in pieces as received; raises BrokenAnswer if it is cut off."""
        while True:
            piece = await self._attempt.next_piece()
            if piece is None:
                return
            yield piece

    def close(self) -> None:
        """Drop the connection unless the body is complete; idempotent."""
        self._attempt.leave()
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()

    def end(self) -> None:
        """End the body with what has arrived so far."""
        self._attempt.end()


class _Deadlines:
    """The deadlines of the attempts at an upstream. One timer serves all: few ever run out of time, and setting and
    cancelling a timer for each costs more than scanning those in flight."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._due: dict[_Attempt, float] = {}

    def put(self, attempt: _Attempt, when: float) -> None:
        """Expire an attempt at `when` on the event loop's clock; replaces an earlier deadline."""
        self._due[attempt] = when
        if self._timer is None:
            self._timer = self._loop.call_later(EXPIRY_CHECK_SECONDS, self._look)

    def drop(self, attempt: _Attempt) -> None:
        """Remove an attempt's deadline; harmless if it has none."""
        self._due.pop(attempt, None)

    def _look(self) -> None:
        now = self._loop.time()
        late = [attempt for attempt, when in self._due.items() if when <= now]
        for attempt in late:
            del self._due[attempt]
        # First, so that an exception below cannot cost the others their deadlines.
        self._timer = self._loop.call_later(EXPIRY_CHECK_SECONDS, self._look) if self._due else None
        for attempt in late:
            attempt.expire()


class _Attempt:
    """One request and its answer. httptools calls the on_… methods.

    It holds the whole state of the answer: after the last byte, the connection may serve another request while the body
    is still unread, and no byte of one answer may reach another's reader.
    """

    __slots__ = (
        "_began",
        "_connection",
        "_deadlines",
        "_dirty",
        "_field_bytes",
        "_got_head",
        "_head_bytes",
        "_interim",
        "_keep_alive",
        "_left",
        "_method",
        "_parser",
        "_pieces",
        "_reader",
        "_since_pause",
        "_take",
        "_waiting",
        "complete",
        "error",
        "fields",
        "head",
        "pours",
        "status",
    )

    def __init__(self, connection: _Connection, method: str) -> None:
        self._connection = connection
        self._deadlines = connection.deadlines
        self._method = method
        self._parser: httptools.HttpResponseParser | None = None
        #: Done once status and fields are here. It does not hold the answer: a cycle waits for the garbage collector.
        self.head: asyncio.Future[None] = connection.loop.create_future()
        self.status: int = 0
        self.fields: Fields = []
        self.complete = False
        self.error: Exception | None = None
        #: Bytes of the body to come that need no parser, which would copy them.
        self._left = 0
        self._field_bytes = 0
        self._head_bytes = 0
        self._began = False
        self._got_head = False
        self._interim = False
        self._keep_alive = False
        self._dirty = False
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._reader: asyncio.Future[None] | None = None
        #: Takes the body at once, instead of a reader; below: bytes that it took since receiving was paused.
        self._take: Take | None = None
        self._since_pause = 0
        #: Received bytes are handed over at once, past the parser.
        self.pours = False

    @property
    def reusable(self) -> bool:
        """The answer is complete, and nothing followed it."""
        return self.complete and self._keep_alive and not self._dirty

    # The reader's side.

    def held_up_to(self, limit: int) -> bool:
        """Whether the whole body has arrived and is at most `limit` bytes."""
        return self.complete and self._waiting <= limit

    def take(self) -> bytes:
        """Everything received and unread."""
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._waiting = 0
        return body

    async def next_piece(self) -> bytes | None:
        """The next piece of the body; None at its end."""
        while not self._pieces:
            if self.error is not None:
                raise self.error
            if self.complete:
                return None
            await self._more()
        piece = self._pieces.popleft()
        self._waiting -= len(piece)
        if self._waiting < HIGH_WATER // 2:
            self._connection.resume(self)
        return piece

    async def _more(self) -> None:
        self._reader = self._connection.loop.create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    async def pour(self, take: Take) -> None:
        """Hand over the whole body, what is to come as it is received."""
        while self._pieces:
            piece = self._pieces.popleft()
            self._waiting -= len(piece)
            take(piece)
        self._take, self.pours = take, self._left > 0
        self._connection.resume(self)
        while self.error is None and not self.complete:
            await self._more()
        if self.error is not None:
            raise self.error

    def put_back(self, piece: bytes) -> None:
        """Undo reading a piece."""
        if piece:
            self._pieces.appendleft(piece)
            self._waiting += len(piece)

    def leave(self) -> None:
        """Stop reading; an incomplete answer costs the connection."""
        if not self.complete:
            self._deadlines.drop(self)
            self._connection.give_up(self)
        self._pieces.clear()
        self._take, self.pours = None, False

    def expire_at(self, when: float | None) -> None:
        """Fail with TimeoutError at `when` unless the answer is complete by then; None: never. The last call counts."""
        if when is None:
            self._deadlines.drop(self)
        elif not self.complete and self.error is None:
            self._deadlines.put(self, when)

    def expire(self) -> None:
        """Fail with TimeoutError."""
        self.fail(TimeoutError())
        self._connection.give_up(self)

    def end(self) -> None:
        """Treat the answer as complete; the connection is not reused."""
        if self.error is None and not self.complete:
            self.expire_at(None)
            self.complete = True
            self._wake()
            self._connection.give_up(self)

    # The connection's side.

    def feed(self, data: Piece) -> None:
        """Take received bytes, a view only while it `pours`; afterwards `complete` or `error` tells whether the attempt
        is over."""
        if not self._began:
            self._began = True
            if self._take_plain(bytes(data)):
                return
            self._parser = httptools.HttpResponseParser(self)
        if self._left:
            if len(data) > self._left:
                self._dirty = True
                data = data[: self._left]
            self.on_body(data)
            if not self._left:
                self.on_message_complete()
            return
        assert self._parser is not None  # the first bytes made it
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fail(BrokenAnswer("the upstream changed the protocol", "http_upgrade_failed"))
        except httptools.HttpParserError as error:
            if self.complete:
                self._dirty = True
            else:
                self.fail(BrokenAnswer(str(error)))
        if not self._got_head:
            # The parser reports a field only at its end, which may never come.
            self._head_bytes += len(data)
            if self._head_bytes > 2 * MAX_FIELD_BYTES:
                self.fail(BrokenAnswer("the head does not end", "http_response_header_section_size"))

    def _take_plain(self, data: bytes) -> bool:
        """Take an answer that is plain and has arrived whole."""
        plain = None if self._method == "HEAD" else plain_head.read_answer(data)
        if plain is None or plain[0] in (204, 304):
            return False
        self.status, self.fields, body = plain
        self._got_head = self._keep_alive = True
        if body:
            self._pieces.append(body)
            self._waiting = len(body)
        self._completed()
        self._tell_head()
        return True

    def end_of_connection(self, reused: bool) -> None:
        """The connection closed: the end of an answer without a length, otherwise a failure."""
        if not self._began:
            self.fail(ConnectionLost(reused))
        elif self._got_head and self._ends_with_connection():
            self._completed()
        else:
            self.fail(BrokenAnswer("the answer was cut off", "http_response_incomplete"))

    def fail(self, error: Exception) -> None:
        if self.error is not None or self.complete:
            return
        self._deadlines.drop(self)
        self.error = error
        if not self.head.done():
            self.head.set_exception(error)
        self._wake()

    def _ends_with_connection(self) -> bool:
        names = {name for name, _ in self.fields}
        return b"content-length" not in names and b"transfer-encoding" not in names

    def _completed(self) -> None:
        self.complete = True
        self._deadlines.drop(self)
        self._wake()

    def _tell_head(self) -> None:
        if not self.head.done():
            self.head.set_result(None)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # httptools' side.

    def on_message_begin(self) -> None:
        if self.complete:
            self._dirty = True
            return
        self.fields = []
        self._interim = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._got_head:
            return
        self.fields.append((name.lower(), value or b""))
        self._field_bytes += len(name) + len(value or b"")
        if len(self.fields) > MAX_FIELDS or self._field_bytes > MAX_FIELD_BYTES:
            self.fail(BrokenAnswer("too many header fields", "http_response_header_section_size"))

    def on_headers_complete(self) -> None:
        if self.complete or self.error is not None:
            return
        assert self._parser is not None  # the parser is the caller
        status = self._parser.get_status_code()
        if status < 200:
            self._interim = status != 101
            if status < 100 or status == 101:
                self.fail(BrokenAnswer(f"status {status}"))
            return
        self._got_head = True
        self.status = status
        self._tell_head()
        if self._method == "HEAD" or status in (204, 304):
            # The parser may wait for the body that a HEAD's fields announce, so it is not used again.
            self._keep_alive = self._parser.should_keep_alive()
            self._completed()
        else:
            self._left = int(get(self.fields, b"content-length") or 0)

    def on_body(self, piece: Piece) -> None:
        if self.complete:
            self._dirty = True
            return
        if self._left:
            self._left -= len(piece)
            self.pours = self.pours and self._left > 0
        if self._take is not None:
            self._pour(self._take, piece)
            return
        self._pieces.append(bytes(piece))
        self._waiting += len(piece)
        if self._waiting > HIGH_WATER:
            self._connection.pause(self)
        self._wake()

    def _pour(self, take: Take, piece: Piece) -> None:
        if self.error is not None:
            return
        try:
            if take(piece):
                self._connection.give_buffer_away()
        except Exception as error:
            self.fail(error)
        self._since_pause += len(piece)
        if self._since_pause >= _POURED_AT_ONCE:
            self._since_pause = 0
            self._connection.pause(self)
            self._connection.loop.call_soon(self._connection.resume, self)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            return
        if not self.complete and self.error is None and self._parser is not None:
            self._keep_alive = self._parser.should_keep_alive()
            self._completed()


class _Connection(asyncio.BufferedProtocol):
    """A connection, and at most one exchange on it at a time."""

    def __init__(self, pool: Upstream) -> None:
        self._pool = pool
        self.loop = pool.loop
        self.deadlines = pool.deadlines
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.closed = False
        self.idle_since = 0.0
        self.keeps = True
        self._served = 0
        self._small = True
        self._long = False
        self._paused = False
        self._current: _Attempt | None = None

    def begin(self, method: str, message: bytes, body: bytes) -> _Attempt:
        """Send a request."""
        if self.closed:
            # It was lost after it was chosen.
            raise ConnectionLost(reused=self._served > 0)
        attempt = self._current = _Attempt(self, method)
        self._small = len(message) + len(body) < SMALLEST_SEND_BUFFER
        self._long = len(body) > 16384
        if self._long:
            self.transport.writelines([message, body])
        else:
            self.transport.write(message + body)
        return attempt

    def pause(self, attempt: _Attempt) -> None:
        """Stop receiving until the reader has caught up."""
        if attempt is self._current and not self._paused and not self.closed:
            self._paused = True
            self.transport.pause_reading()

    def resume(self, attempt: _Attempt) -> None:
        """Receive again."""
        if attempt is self._current and self._paused:
            self._paused = False
            if not self.closed:
                self.transport.resume_reading()

    def give_buffer_away(self) -> None:
        """Receive into another buffer from now on."""
        self._pool.make_buffer()

    def give_up(self, attempt: _Attempt) -> None:
        """Close, if this attempt is still the current one."""
        if attempt is self._current:
            self._current = None
            self.abort()

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self.transport.abort()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        attempt = self._current
        return self._pool.buffer if attempt is not None and attempt.pours else self._pool.small_buffer

    def buffer_updated(self, nbytes: int) -> None:
        attempt = self._current
        if attempt is None:
            # Unsolicited: it must not become the answer to the next request.
            self.abort()
            return
        data = self._pool.buffer[:nbytes]
        attempt.feed(data if attempt.pours else bytes(data))
        if attempt.complete:
            self._finish(attempt)
        elif attempt.error is not None:
            self.give_up(attempt)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        attempt, self._current = self._current, None
        if attempt is not None:
            attempt.end_of_connection(reused=self._served > 0)

    def _may_be_unread(self, attempt: _Attempt) -> bool:
        """Whether the upstream may have answered before reading the whole request: the next would queue behind the
        rest.

        It need not say so (RFC 9112 section 9.3). Bytes that left this process may lie unread at the upstream, as they
        usually do when a long body is refused.
        """
        if self._small:
            return False
        return self.transport.get_write_buffer_size() > 0 or (self._long and attempt.status >= 400)

    def _finish(self, attempt: _Attempt) -> None:
        self.resume(attempt)
        self._current = None
        self._served += 1
        if self.keeps and attempt.reusable and not self.closed and not self._may_be_unread(attempt):
            self._pool.keep(self)
        else:
            self.abort()


class Upstream:
    """A pool of connections to one service. Belongs to one event loop."""

    def __init__(self, name: str, url: str, *, resolve: ResolveHost = system_resolve) -> None:
        self.name = name
        self.origin = Origin.parse(url)
        self._resolver = Resolver(self.origin.host, self.origin.port, resolve=resolve)
        self.loop = asyncio.get_running_loop()
        self.deadlines = _Deadlines(self.loop)
        self._idle: deque[_Connection] = deque()
        self._connecting = asyncio.Semaphore(MAX_CONNECTING)
        self._tls = ssl.create_default_context() if self.origin.tls else None
        self.make_buffer()

    async def exchange(
        self,
        method: str,
        target: bytes,
        fields: bytes,
        body: bytes | None,
        *,
        connect: float,
        until: float | None = None,
        fresh: bool = False,
        keep: bool = True,
    ) -> UpstreamAnswer:
        """Send a request; return its answer once the head is here. If cancelled, it drops the connection.

        `fields` is a block of field lines without Host and framing, which are set here. `connect` bounds a new
        connection, in seconds; `fresh` forces one; without `keep` it is closed after the answer. Raises TimeoutError
        when there is no head by `until` on the event loop's clock, and OSError when this process is out of files, ports
        or memory.
        """
        framing = b"" if body is None else b"content-length: %d\r\n" % len(body)
        message = b"%b %b%b HTTP/1.1\r\nhost: %b\r\n%b%b\r\n" % (
            method.encode("ascii"),
            self.origin.prefix,
            target,
            self.origin.authority,
            fields,
            framing,
        )
        connection = None if fresh else self._kept()
        if connection is None:
            async with asyncio.timeout_at(until), self._connecting:
                # One may have become free meanwhile.
                connection = (None if fresh else self._kept()) or await self._connect(connect)
        connection.keeps = keep
        attempt = connection.begin(method, message, body or b"")
        attempt.expire_at(until)
        try:
            await attempt.head
        except BaseException:
            attempt.leave()
            raise
        return UpstreamAnswer(attempt)

    def make_buffer(self) -> None:
        """Make a new buffer for the connections to receive into, each before the next."""
        self.buffer = memoryview(bytearray(_READ_POURED))
        self.small_buffer = self.buffer[:_READ]

    def keep(self, connection: _Connection) -> None:
        """Take a connection back after a complete exchange."""
        now = self.loop.time()
        connection.idle_since = now
        self._idle.append(connection)
        while self._idle and (len(self._idle) > MAX_IDLE or now - self._idle[0].idle_since > IDLE_SECONDS):
            self._idle.popleft().abort()

    def close(self) -> None:
        while self._idle:
            self._idle.popleft().abort()

    def _kept(self) -> _Connection | None:
        now = self.loop.time()
        while self._idle:
            connection = self._idle.pop()
            if connection.closed or connection.transport.is_closing():
                continue
            if now - connection.idle_since > IDLE_SECONDS:
                connection.abort()
                continue
            return connection
        return None

    async def _connect(self, limit: float) -> _Connection:
        try:
            async with asyncio.timeout(limit):
                return await happy_eyeballs.connect(self._resolver, self._connect_to, _Connection.abort)
        except TimeoutError as error:
            fault = "connection_timeout" if self._resolver.known else "dns_timeout"
            raise ConnectFailed(f"no connection to {self.name} within {limit} s", fault) from error
        except UnicodeError as error:
            raise ConnectFailed(f"not the name of a host: {error}", "dns_error") from error
        except OSError as error:
            if is_shortage(error):
                raise
            raise ConnectFailed(str(error), _connect_fault(error)) from error

    async def _connect_to(self, address: HostAddress) -> _Connection:
        _, connection = await self.loop.create_connection(
            lambda: _Connection(self),
            address.host,
            self.origin.port,
            family=address.family,
            ssl=self._tls,
            server_hostname=self.origin.host if self._tls is not None else None,
        )
        return connection


def _connect_fault(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection_refused"
    if isinstance(error, socket.gaierror):
        return "dns_error"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "tls_certificate_error"
    if isinstance(error, ssl.SSLError):
        return "tls_protocol_error"
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return "connection_terminated"
    return "destination_unavailable"


async def fetch(upstream: Upstream, target: bytes, *, seconds: float, limit: int = 4 * 1024 * 1024) -> bytes | None:
    """Get one of the service's own pages (/readyz, /openapi.json); None unless it answers 200 in time.

    Bypasses the circuit, so that it does not count as a client's request. Raises OSError as `Upstream.exchange` does.
    """
    answer: UpstreamAnswer | None = None
    try:
        async with asyncio.timeout(seconds):
            answer = await upstream.exchange("GET", target, b"", None, connect=seconds, fresh=True, keep=False)
            body = await answer.read(limit)
            return body if answer.status == 200 else None
    except (UpstreamError, TimeoutError):
        return None
    finally:
        if answer is not None:
            answer.close()
