"""Sends a request through a circuit, a bulkhead and an upstream, under one deadline."""

from __future__ import annotations

import codecs
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from api_gateway import headers
from api_gateway.errors import (
    BadUpstreamAnswer,
    UpstreamCircuitOpen,
    UpstreamSaturated,
    UpstreamUnavailable,
    proxy_status,
)
from api_gateway.limits import Bulkhead, BulkheadFull, RetryBudget
from api_gateway.route_table import Limits
from api_gateway.upstream import (
    HIGH_WATER,
    BrokenAnswer,
    ConnectFailed,
    ConnectionLost,
    Piece,
    Take,
    Upstream,
    UpstreamAnswer,
    UpstreamError,
)
from servicekit.circuits import MISDIRECTED, Circuit, CircuitOpen, Permit, outcome_of
from servicekit.http_server.request import Fields
from servicekit.observing import shortage
from servicekit.wire.envelope import BEGINNING, NotAnEnvelope, code_of
from servicekit.wire.errors import AppError, DeadlineExceeded, Overloaded
from servicekit.wire.memory import SMALL, Account

#: How long a request may wait for a place at an upstream, in seconds.
PLACE_SECONDS = 2.0
#: How much longer a trial keeps its place than the call can last, in seconds.
_LEASE_MARGIN = 5.0
#: Bytes of a large answer that are decoded at a time.
_DECODED_AT_ONCE = 16 * 1024
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# PATCH, since in every service it does what PUT does.
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: Media types that pass through without an envelope.
_PASSING_MEDIA_TYPES = frozenset({"text/event-stream", "text/csv", "application/jwk-set+json"})


#: How a call ended for its circuit; `not_permitted` was never sent.
Kind = Literal["success", "failure", "neutral", "not_permitted"]


@dataclass(frozen=True, slots=True)
class Lane:
    """The circuit, bulkhead and retry budget of one upstream."""

    name: str
    upstream: Upstream
    circuit: Circuit
    bulkhead: Bulkhead
    budget: RetryBudget
    #: Called with the lane's name for each retry.
    on_retry: Callable[[str], None] = lambda _: None
    #: Called with the lane's name, a call's outcome, and its seconds (None: never sent).
    on_call: Callable[[str, Kind, float | None], None] = lambda _name, _kind, _seconds: None


@dataclass(slots=True)
class Call:
    """A request to send. `ends_at` is on the event loop's clock."""

    method: str
    target: str
    #: The field lines, without those that `Upstream` sets and the time left.
    fields: bytes
    body: bytes | None
    limits: Limits
    ends_at: float
    #: The client gave less time than the route allows, so a timeout is not the upstream's fault.
    shortened: bool
    #: Memory that the request takes.
    account: Account | None = None
    #: The client takes an answer in pieces.
    in_pieces: bool = False


@dataclass(slots=True)
class Notes:
    """Details for a request's log line."""

    upstream: str | None = None
    circuit: str | None = None
    attempts: int = 0
    cause: str | None = None


class Flow:
    """The body of a large good answer, passed on in pieces, of which only the beginning was known to be good when the
    answer began. It keeps its place at the upstream until closed, and its outcome counts when that is known."""

    __slots__ = ("_answer", "_began", "_call", "_kind", "_lane", "_permit", "ahead", "length")

    def __init__(self, lane: Lane, call: Call, permit: Permit, answer: UpstreamAnswer, began: float) -> None:
        self._lane = lane
        self._call = call
        self._permit = permit
        self._answer = answer
        self._began = began
        self._kind: Kind | None = None
        length = headers.get(answer.fields, b"content-length")
        #: Bytes of the body, if the upstream said so.
        self.length = None if length is None else int(length)
        #: Bytes that may still come and are counted in the call's account, so that a slow client's answer always has
        #: room here, and keeps no place at the upstream.
        self.ahead = self.length if self.length is not None else HIGH_WATER
        if call.account is not None:
            call.account.take(self.ahead)

    async def pour(self, pass_on: Take) -> None:
        """Hand over the checked pieces as `UpstreamAnswer.pour` does. Raises UpstreamError before a piece that is not
        good, or if the rest does not come; TimeoutError; what `pass_on` raises."""
        text = None if _is_coded(self._answer) else _Text()
        size = 0

        def check(piece: Piece) -> bool:
            nonlocal size
            size += len(piece)
            if self.length is not None:
                self.ahead = self.length - size
            if size > self._call.limits.answer:
                raise BrokenAnswer(f"more than {self._call.limits.answer} bytes", "http_response_body_size")
            if text is not None:
                text.check(piece)
                if size == self.length:
                    text.check_end()
            return pass_on(piece)

        try:
            await self._answer.pour(check)
            if text is not None:
                text.check_end()
        except TimeoutError:
            if not self._call.shortened:
                self._failed("timeout")
            raise
        except UpstreamError:
            self._failed("broken answer")
            raise
        self._kind = "success"
        self._permit.success(time.perf_counter() - self._began)

    def _failed(self, why: str) -> None:
        self._kind = "failure"
        self._permit.failure(time.perf_counter() - self._began, why)

    def close(self) -> None:
        """Give up what has not been read, and the place; idempotent."""
        if self._answer.on_close is None:
            return
        if self._kind is None:
            self._permit.neutral()
        self._lane.on_call(self._lane.name, self._kind or "neutral", time.perf_counter() - self._began)
        self._answer.close()


def _is_ascii(piece: Piece) -> bool:
    """Whether a piece is known to be ASCII: a view cannot tell, and the buffer behind it may hold more."""
    if len(piece) <= _DECODED_AT_ONCE:
        return bytes(piece).isascii()
    whole = piece.obj if isinstance(piece, memoryview) else piece
    return isinstance(whole, bytes | bytearray) and whole.isascii()


class _Text:
    """An envelope that is passed on in pieces: whether it is UTF-8 and ends as it should. Raises BrokenAnswer."""

    __slots__ = ("_decoder", "_end")

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._end = b""

    def check(self, piece: Piece) -> None:
        if not _is_ascii(piece) or self._decoder.getstate()[0]:
            try:
                # Not all at once: its text would take much new memory.
                for at in range(0, len(piece), _DECODED_AT_ONCE):
                    self._decoder.decode(piece[at : at + _DECODED_AT_ONCE])
            except UnicodeDecodeError as error:
                raise BrokenAnswer("it is not UTF-8") from error
        self._end = bytes(piece[-64:]).rstrip() or bytes(piece).rstrip()[-1:] or self._end

    def check_end(self) -> None:
        if self._decoder.getstate()[0]:
            raise BrokenAnswer("it is not UTF-8")
        if not self._end.endswith(b"}"):
            raise BrokenAnswer("it is not a whole envelope")


@dataclass(slots=True)
class Reply:
    """An answer to the client. Either `body` is complete, or `stream` still flows."""

    status: int
    fields: Fields
    body: bytes = b""
    #: The Content-Length of an answer without a body (HEAD), if the upstream sent one.
    length: bytes | None = None
    #: The error code in the envelope, if the upstream refused.
    code: str | None = None
    #: The checked pieces of `stream`, of an answer with an envelope.
    flow: Flow | None = None
    stream: UpstreamAnswer | None = None
    #: The stream is a good answer, whose rest is still to be checked.
    flows: bool = False
    #: When a stream must end (None: never), and how long it may be silent, in seconds.
    stream_ends_at: float | None = None
    stream_idle: float = 60.0


async def forward(lane: Lane, call: Call, notes: Notes) -> Reply:
    """Send a call and return its reply; raises the errors of api_gateway.errors, DeadlineExceeded or Overloaded."""
    notes.upstream = lane.name
    now = lane.upstream.loop.time()
    if now >= call.ends_at:
        raise DeadlineExceeded(headers=proxy_status(lane.name, "http_response_timeout"))
    # An open circuit answers without waiting.
    permit = _permit(lane, call, notes)
    if not lane.bulkhead.try_enter():
        permit = await _wait_for_place(lane, call, notes, permit, call.ends_at - now)
    # Not the event loop's clock, which uvloop updates in whole milliseconds.
    began = time.perf_counter()
    answer: UpstreamAnswer | None = None
    kind: Kind = "neutral"
    streams = flows = False
    try:
        lane.budget.called()
        until = min(call.ends_at, lane.upstream.loop.time() + call.limits.first_byte)
        try:
            answer = await _send(lane, call, notes, until)
        except ConnectionLost as error:
            # Usually a kept connection that the upstream closed while idle. Nothing came back, and an idempotent
            # request may be sent again (RFC 9110 section 9.2.2).
            if not _may_be_repeated(call) or not error.reused or not lane.budget.try_retry():
                raise
            lane.on_retry(lane.name)
            answer = await _send(lane, call, notes, until, fresh=True)
        if call.account is not None and call.method not in _SAFE:
            call.account.refuse_nothing()
        reply = await _reply(lane, call, answer)
        if reply.flows:
            reply.flow = Flow(lane, call, permit, answer, began)
            flows = True
        if reply.stream is not None:
            # The reply owns it now, and keeps its place until closed.
            reply.stream.on_close = lane.bulkhead.leave
            streams, answer = True, None
        if flows:
            return reply
        kind = outcome_of(reply.status, lane.name, reply.code)
        if kind == "success":
            permit.success(time.perf_counter() - began)
        elif kind == "failure":
            permit.failure(time.perf_counter() - began, f"status {reply.status}")
        return reply
    except TimeoutError as error:
        if not call.shortened:
            kind = "failure"
            permit.failure(time.perf_counter() - began, "timeout")
        fault = "connection_read_timeout" if answer is None else "http_response_timeout"
        raise DeadlineExceeded(headers=proxy_status(lane.name, fault)) from error
    except OSError as error:
        if not shortage.is_shortage(error):
            raise
        # Nothing was sent: this process is out of files, ports or memory.
        shortage.report(error, at=lane.name)
        notes.cause = str(error)
        raise Overloaded(headers=proxy_status(lane.name, "proxy_internal_error")) from error
    except ConnectFailed as error:
        kind = "failure"
        permit.failure(time.perf_counter() - began, "connect")
        notes.cause = str(error)
        raise UpstreamUnavailable(lane.name, error.proxy_error) from error
    except (ConnectionLost, BrokenAnswer) as error:
        kind = "failure"
        permit.failure(time.perf_counter() - began, "broken answer")
        notes.cause = str(error)
        received = None if answer is None else answer.status
        raise BadUpstreamAnswer(lane.name, error.proxy_error, received) from error
    finally:
        if not flows:
            if kind == "neutral":
                # Any other end (usually the client left) says nothing about the upstream.
                permit.neutral()
            lane.on_call(lane.name, kind, time.perf_counter() - began)
        if not streams:
            lane.bulkhead.leave()
        if answer is not None:
            answer.close()


async def _wait_for_place(lane: Lane, call: Call, notes: Notes, permit: Permit, seconds: float) -> Permit:
    """Wait for a place in the bulkhead, within the deadline; then ask the circuit again."""
    permit.neutral()
    try:
        await lane.bulkhead.enter(min(PLACE_SECONDS, seconds))
    except BulkheadFull as error:
        raise UpstreamSaturated(lane.name) from error
    try:
        return _permit(lane, call, notes)
    except AppError:
        lane.bulkhead.leave()
        raise


def _permit(lane: Lane, call: Call, notes: Notes) -> Permit:
    try:
        permit = lane.circuit.acquire(lease=call.limits.total + _LEASE_MARGIN)
    except CircuitOpen as error:
        notes.circuit = "open"
        lane.on_call(lane.name, "not_permitted", None)
        raise UpstreamCircuitOpen(lane.name, error.retry_in) from error
    notes.circuit = "half_open" if permit.is_trial else "closed"
    return permit


def _may_be_repeated(call: Call) -> bool:
    """Whether a call that may have been processed can safely be repeated. With If-Match, the second would meet the
    state made by the first, and fail as if another client had changed it."""
    return call.method in _IDEMPOTENT and b"\r\nif-match:" not in b"\r\n" + call.fields


def _send(lane: Lane, call: Call, notes: Notes, until: float, *, fresh: bool = False) -> Awaitable[UpstreamAnswer]:
    notes.attempts += 1
    upstream = lane.upstream
    # The clock ticks in whole ms, and what floating point makes of their difference may be a little less.
    left = max(int((call.ends_at - upstream.loop.time()) * 1000 + 1e-6), 1)
    return upstream.exchange(
        call.method,
        call.target.encode("ascii"),
        b"%bx-request-timeout-ms: %d\r\n" % (call.fields, left),
        call.body,
        connect=call.limits.connect,
        until=until,
        fresh=fresh,
    )


async def _reply(lane: Lane, call: Call, answer: UpstreamAnswer) -> Reply:
    if answer.status == MISDIRECTED:
        raise BrokenAnswer("it is not known by the name we ask it by: see its ALLOWED_HOSTS")
    reply = Reply(answer.status, headers.down(answer.fields, lane.upstream.origin.text))
    media_type = media_type_of(headers.get(answer.fields, b"content-type"))
    redirects = 300 <= answer.status < 400
    passes = media_type in _PASSING_MEDIA_TYPES
    if media_type != "application/json" and not (passes or redirects or answer.status in (204, 304)):
        raise BrokenAnswer(f"media type {media_type or 'missing'}")
    if has_no_body(call.method, answer.status):
        await answer.read(0)
        if call.method == "HEAD":
            reply.length = headers.get(answer.fields, b"content-length")
        return reply
    if passes:
        answer.expire_at(None)
        reply.stream = answer
        reply.stream_ends_at = None if media_type == "text/event-stream" else call.ends_at
        reply.stream_idle = call.limits.idle
        return reply
    body = answer.take(call.limits.answer)
    if body is None:
        answer.expire_at(call.ends_at)
        if call.in_pieces and answer.status < 300 and await _begins_well(call, answer):
            reply.stream, reply.flows = answer, True
            return reply
        body = await answer.read(call.limits.answer, call.account)
    elif call.account is not None and len(body) > SMALL:
        call.account.take(len(body))
    if redirects:
        # The Location says it all; the body is usually an HTML page.
        reply.fields = [pair for pair in reply.fields if pair[0] not in (b"content-type", b"content-encoding")]
        return reply
    reply.body = body
    if not _is_coded(answer):
        try:
            reply.code = code_of(answer.status, body)
        except NotAnEnvelope as error:
            raise BrokenAnswer(str(error)) from error
    return reply


async def _begins_well(call: Call, answer: UpstreamAnswer) -> bool:
    """Whether an answer is large and its beginning known to be good, so that the rest may follow in pieces."""
    length = headers.get(answer.fields, b"content-length")
    if length is not None and not SMALL < int(length) <= call.limits.answer:
        return False
    beginning = await answer.beginning(SMALL)
    return len(beginning) > SMALL and (_is_coded(answer) or BEGINNING.match(beginning) is not None)


def _is_coded(answer: UpstreamAnswer) -> bool:
    return (headers.get(answer.fields, b"content-encoding") or b"identity") != b"identity"


@lru_cache(maxsize=64)
def media_type_of(content_type: bytes | None) -> str:
    """The media type in a Content-Type field, without parameters, in lower case; empty if there is none."""
    return (content_type or b"").partition(b";")[0].strip().lower().decode("latin-1")


def has_no_body(method: str, status: int) -> bool:
    """Whether an answer carries no body whatever its fields say (RFC 9112 section 6.3)."""
    return method == "HEAD" or status in (204, 304)
