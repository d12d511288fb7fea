"""One request through waiting line, circuit and upstream, under one deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from api_gateway import headers, outcomes
from api_gateway.errors import (
    BadUpstreamAnswer,
    UpstreamCircuitOpen,
    UpstreamSaturated,
    UpstreamUnavailable,
    proxy_status,
)
from api_gateway.headers import Fields
from api_gateway.limits import Bulkhead, LineFull, RetryBudget
from api_gateway.outcomes import Envelope
from api_gateway.route_table import Limits
from api_gateway.upstream import Answer, BrokenAnswer, ConnectFailed, ConnectionLost, Upstream
from servicekit.circuits import Circuit, CircuitOpen, Permit
from servicekit.errors import AppError, DeadlineExceeded

#: A request may wait this long, in seconds, for a place at an upstream.
LINE_SECONDS = 2.0
#: A trial keeps its place somewhat longer than the call can last.
_LEASE_MARGIN = 5.0
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})


#: How a call ended for its circuit; `not_permitted` never began.
Kind = Literal["success", "failure", "neutral", "not_permitted"]


@dataclass(frozen=True, slots=True)
class Lane:
    """What stands between the gateway and one upstream."""

    name: str
    upstream: Upstream
    circuit: Circuit
    bulkhead: Bulkhead
    budget: RetryBudget
    #: Told the lane's name whenever a request is sent a second time.
    on_retry: Callable[[str], None] = lambda _: None
    #: Told the lane's name, how each call ended, and the seconds it took (None: it was never sent).
    on_call: Callable[[str, Kind, float | None], None] = lambda _name, _kind, _seconds: None


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it goes up. `ends_at` is on the event loop's clock."""

    method: str
    target: str
    fields: Sequence[tuple[bytes, bytes]]
    body: bytes | None
    limits: Limits
    ends_at: float
    #: The client gave less time than the route does, so running out of it is not the upstream's fault.
    shortened: bool


@dataclass(slots=True)
class Notes:
    """What the log line tells about a request."""

    upstream: str | None = None
    circuit: str | None = None
    attempts: int = 0
    cause: str | None = None


@dataclass(slots=True)
class Reply:
    """An answer on its way down. Either `body` is all of it, or `stream` still flows."""

    status: int
    fields: Fields
    body: bytes = b""
    #: The Content-Length of an answer without a body (HEAD), if the upstream told it.
    length: bytes | None = None
    envelope: Envelope | None = None
    stream: Answer | None = None
    #: When a stream must have ended (None: never), and how long it may be silent, in seconds.
    stream_ends_at: float | None = None
    stream_idle: float = 60.0


async def forward(lane: Lane, call: Call, notes: Notes) -> Reply:
    """Send a call and give its reply; raises the errors of api_gateway.errors, or DeadlineExceeded."""
    loop = asyncio.get_running_loop()
    notes.upstream = lane.name
    if loop.time() >= call.ends_at:
        raise DeadlineExceeded
    permit = await _admitted(lane, call, notes)
    started = loop.time()
    # Not the event loop's clock, which uvloop moves in whole milliseconds.
    began = time.perf_counter()
    answer: Answer | None = None
    kind: Kind = "neutral"
    streams = False
    try:
        async with asyncio.timeout_at(min(call.ends_at, started + call.limits.first_byte)):
            answer = await _attempts(lane, call, notes)
        async with asyncio.timeout_at(call.ends_at):
            reply = await _reply(lane, call, answer)
        code = None if reply.envelope is None else reply.envelope.code
        outcome = outcomes.of_answer(reply.status, lane.name, code)
        kind = outcome
        _report(permit, outcome, time.perf_counter() - began, f"status {reply.status}")
        if reply.stream is not None:
            answer = None  # it lives on in the reply, and keeps its place until it is closed
            streams = True
            reply.stream.on_close = lane.bulkhead.leave
        return reply
    except TimeoutError as error:
        if call.shortened:
            permit.neutral()
        else:
            kind = "failure"
            permit.failure(time.perf_counter() - began, "timeout")
        fault = "connection_read_timeout" if answer is None else "http_response_timeout"
        raise DeadlineExceeded(headers=proxy_status(lane.name, fault)) from error
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
        # Whatever else ends the call, a client that left above all, says nothing about the upstream.
        permit.neutral()
        lane.on_call(lane.name, kind, time.perf_counter() - began)
        if not streams:
            lane.bulkhead.leave()
        if answer is not None:
            answer.close()


async def _admitted(lane: Lane, call: Call, notes: Notes) -> Permit:
    """A permit of the circuit and a place in the bulkhead; an open circuit answers before any waiting."""
    permit = _permit(lane, call, notes)
    if lane.bulkhead.try_enter():
        return permit
    permit.neutral()
    left = call.ends_at - asyncio.get_running_loop().time()
    try:
        await lane.bulkhead.enter(min(LINE_SECONDS, left))
    except LineFull as error:
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


async def _attempts(lane: Lane, call: Call, notes: Notes) -> Answer:
    lane.budget.called()
    try:
        return await _once(lane, call, notes, fresh=False)
    except ConnectionLost as error:
        # Most often a kept connection that the upstream closed while idle: nothing came back, and for an
        # idempotent method asking again is safe (RFC 9110 section 9.2.2).
        if call.method not in _IDEMPOTENT or not error.reused or not lane.budget.try_retry():
            raise
    lane.on_retry(lane.name)
    return await _once(lane, call, notes, fresh=True)


async def _once(lane: Lane, call: Call, notes: Notes, *, fresh: bool) -> Answer:
    notes.attempts += 1
    left = max(int((call.ends_at - asyncio.get_running_loop().time()) * 1000), 1)
    return await lane.upstream.exchange(
        call.method,
        call.target.encode("ascii"),
        [*call.fields, (b"x-request-timeout-ms", b"%d" % left)],
        call.body,
        connect=call.limits.connect,
        fresh=fresh,
    )


async def _reply(lane: Lane, call: Call, answer: Answer) -> Reply:
    fields = headers.down(answer.fields)
    origin = lane.upstream.origin.text
    fields = [(name, headers.own_location(value, origin) if name == b"location" else value) for name, value in fields]
    reply = Reply(answer.status, fields)
    media_type = outcomes.media_type(headers.get(answer.fields, b"content-type"))
    redirects = 300 <= answer.status < 400
    if media_type not in ("application/json", *outcomes.PASSING_MEDIA_TYPES) and not (
        redirects or answer.status in (204, 304)
    ):
        raise BrokenAnswer(f"media type {media_type or 'missing'}")
    if outcomes.has_no_body(call.method, answer.status):
        await answer.read(0)
        if call.method == "HEAD":
            reply.length = headers.get(answer.fields, b"content-length")
        return reply
    if media_type in outcomes.PASSING_MEDIA_TYPES:
        reply.stream = answer
        reply.stream_ends_at = None if media_type == "text/event-stream" else call.ends_at
        reply.stream_idle = call.limits.idle
        return reply
    body = await answer.read(call.limits.answer)
    if redirects:
        # Its body is a page for people as a rule; the Location says it all.
        reply.fields = [pair for pair in fields if pair[0] not in (b"content-type", b"content-encoding")]
        return reply
    reply.body = body
    if (headers.get(answer.fields, b"content-encoding") or b"identity") == b"identity":
        reply.envelope = outcomes.read_envelope(answer.status, body)
        if reply.envelope is None:
            raise BrokenAnswer("not an envelope")
    return reply


def _report(permit: Permit, outcome: outcomes.Outcome, seconds: float, reason: str) -> None:
    if outcome == "success":
        permit.success(seconds)
    elif outcome == "failure":
        permit.failure(seconds, reason)
    else:
        permit.neutral()
