"""One request of a client: read, routed, answered, logged and counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from api_gateway import headers
from api_gateway.body import ClientLeft, Receive, RequestBody
from api_gateway.details import Part, details
from api_gateway.errors import BadRequest, BadUpstreamAnswer, Overloaded, status_of
from api_gateway.forward import Call, Lane, Notes, Reply, forward
from api_gateway.headers import Fields, Peer, TrustedProxies
from api_gateway.limits import Lateness, RateLimiter
from api_gateway.measures import GatewayMeasures
from api_gateway.outcomes import has_no_body
from api_gateway.paths import Target, split_target, without_alias
from api_gateway.route_table import Match, RouteTable
from api_gateway.upstream import Answer, UpstreamError
from servicekit import deadline, request_id
from servicekit.envelope import dump, failure, success
from servicekit.errors import AppError, MethodNotAllowed, NotFound, TooManyRequests
from servicekit.logs import Frequent, get_logger
from servicekit.metrics import UNMATCHED, Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

#: What is left of the deadline for the answer when one part of two is late.
_MERGE_SECONDS = 0.03
#: The status in the log for a client that left before its answer (nginx's custom).
CLIENT_LEFT = 499
#: Methods that are sent on with `Content-Length: 0` when there is no body (RFC 9110 section 8.6).
_WITH_BODY = frozenset({"POST", "PUT"})
_JSON: tuple[bytes, bytes] = (b"content-type", b"application/json")
#: Fields of a client's request for one thing that make no sense on the parts it is made of.
_NOT_FOR_PARTS = frozenset({b"content-type", b"content-encoding", b"if-match", b"if-none-match", b"range"})

log = get_logger(__name__)
log_request = Frequent(__name__)


@dataclass(slots=True)
class Request:
    """A client's request after the first checks."""

    method: str
    target: Target
    path: str
    fields: Fields
    peer: Peer
    request_id: str
    http_version: str
    body: RequestBody


class Front:
    """The ASGI application for HTTP."""

    def __init__(
        self,
        *,
        table: RouteTable,
        lanes: Mapping[str, Lane],
        control: AsgiApp,
        metrics: Metrics,
        trusted: TrustedProxies,
        origins: frozenset[str],
        measures: GatewayMeasures,
        lateness: Lateness,
        limiter: RateLimiter | None = None,
    ) -> None:
        self._table = table
        self._lanes = lanes
        self._control = control
        self._metrics = metrics
        self._trusted = trusted
        self._origins = origins
        self._measures = measures
        self._lateness = lateness
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = headers.get(scope["headers"], b"x-request-id")
        with request_id.use(request_id.accept_or_make(None if given is None else given.decode("latin-1"))) as made:
            await self._serve(scope, receive, send, made)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, made: str) -> None:
        # Not the event loop's clock, which uvloop moves in whole milliseconds.
        began = time.perf_counter()
        notes = Notes()
        body = RequestBody(scope["headers"], receive)
        route, status = UNMATCHED, CLIENT_LEFT
        quota: Fields = []
        try:
            try:
                request = self._read_head(scope, made, body)
                match = self._match(request)
                if match is not None:
                    route = match.route.template
                    if match.route.handler == "control" and match.route.allows(request.method):
                        status = 0
                        await self._page(scope, request, receive, send)
                        return
                if self._lateness.overloaded:
                    self._measures.refused("", Overloaded.code)
                    raise Overloaded
                if self._limiter is not None:
                    quota = self._take_quota(self._limiter, request)
                reply = await self._answer(request, match, notes)
            except AppError as error:
                if notes.upstream is not None:
                    self._measures.refused(notes.upstream, error.code)
                if error.__cause__ is not None and notes.cause is None:
                    notes.cause = repr(error.__cause__)
                reply = _refusal(error)
            except ClientLeft:
                return
            except Exception:  # a fault of ours: it must reach the log, and the client as a 500 envelope
                log.exception("request_crashed")
                reply = _refusal(AppError(headers={"Proxy-Status": "siteworks; error=proxy_internal_error"}))
            if quota:
                reply.fields = [*reply.fields, *quota]
            await self._send(scope, reply, made, send)
            status = reply.status
            await body.drain()
        finally:
            # A page was logged and counted by the Flask side.
            if status:
                self._note(scope, route, status, time.perf_counter() - began, notes)

    def _match(self, request: Request) -> Match | None:
        match = self._table.match(request.path)
        if match is not None and match.route.handler == "control" and request.path != request.target.path:
            return None  # the gateway's own pages have no alias
        return match

    def _read_head(self, scope: Scope, made: str, body: RequestBody) -> Request:
        fields: Fields = scope["headers"]
        raw = _raw_target(scope)
        target = Target("*", None) if raw == "*" else split_target(raw)
        hosts = [value for name, value in fields if name == b"host"]
        if len(hosts) != 1 and scope["http_version"] != "1.0":
            raise BadRequest("A request names exactly one Host.")
        if hosts and not headers.valid_host(hosts[0]):
            raise BadRequest("The Host field is not valid.")
        address = scope["client"][0] if scope.get("client") else ""
        peer = Peer(
            address=address,
            scheme=scope.get("scheme", "http"),
            host=hosts[0].decode("latin-1") if hosts else "",
            trusted=address in self._trusted,
        )
        return Request(
            method=scope["method"],
            target=target,
            path=without_alias(target.path),
            fields=fields,
            peer=peer,
            request_id=made,
            http_version=scope["http_version"],
            body=body,
        )

    def _take_quota(self, limiter: RateLimiter, request: Request) -> Fields:
        """Count a request against its client's quota; gives the fields that tell of it, or raises TooManyRequests."""
        address = headers.client_address(request.fields, request.peer.address, self._trusted)
        allowance = limiter.take(headers.client_key(address), time.monotonic())
        told = {"RateLimit-Policy": limiter.quota.policy, "RateLimit": allowance.field}
        if not allowance.allowed:
            self._measures.refused("", TooManyRequests.code)
            raise TooManyRequests(headers={**told, "Retry-After": str(allowance.seconds)})
        return [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in told.items()]

    async def _answer(self, request: Request, match: Match | None, notes: Notes) -> Reply:
        if request.target.path == "*":
            return Reply(204, [(b"allow", b"GET, HEAD, POST, PUT, DELETE, OPTIONS")])
        if match is None:
            raise NotFound
        route = match.route
        if request.method == "OPTIONS":
            return Reply(204, [(b"allow", route.allow.encode("ascii"))])
        if not route.allows(request.method):
            raise MethodNotAllowed(headers={"Allow": route.allow})
        body: bytes | None = await request.body.read(route.limits.body)
        if not request.body.present and request.method not in _WITH_BODY:
            body = None
        total, shortened = route.limits.total, False
        asked = headers.get(request.fields, b"x-request-timeout-ms")
        wanted = deadline.seconds_from_header(None if asked is None else asked.decode("latin-1"))
        if wanted is not None and wanted < total:
            total, shortened = wanted, True
        call = Call(
            method=request.method,
            target=Target(request.path, request.target.query).raw,
            fields=headers.up(
                request.fields, peer=request.peer, request_id=request.request_id, http_version=request.http_version
            ),
            body=body,
            limits=route.limits,
            ends_at=asyncio.get_running_loop().time() + total,
            shortened=shortened,
        )
        if route.handler == "details":
            return await self._details(match.variables[0], call, notes)
        return await forward(self._lanes[route.upstream], call, notes)

    async def _details(self, raw_id: str, call: Call, notes: Notes) -> Reply:
        parts = {"users": Notes(), "orders": Notes()}
        fields = [field for field in call.fields if field[0] not in _NOT_FOR_PARTS]

        async def ask(name: str, target: str) -> Part:
            ends_at = call.ends_at - (_MERGE_SECONDS if name == "orders" else 0)
            part = Call("GET", target, fields, None, call.limits, ends_at, call.shortened)
            reply = await forward(self._lanes[name], part, parts[name])
            if reply.envelope is None:
                if reply.stream is not None:
                    reply.stream.close()
                # A redirect or a page where only an envelope makes sense.
                raise BadUpstreamAnswer(name, received=reply.status)
            return Part(reply.status, reply.envelope, headers.get(reply.fields, b"retry-after"))

        try:
            made = await details(raw_id, ask)
        finally:
            notes.upstream = "users,orders"
            notes.circuit = f"{parts['users'].circuit},{parts['orders'].circuit}"
            notes.attempts = parts["users"].attempts + parts["orders"].attempts
            notes.cause = parts["users"].cause or parts["orders"].cause
        if made.error is not None:
            told = [] if made.retry_after is None else [(b"retry-after", made.retry_after)]
            return Reply(made.status, [_JSON, *told], dump({"success": False, "error": made.error}))
        return Reply(made.status, [_JSON], dump(success(made.data)))

    async def _page(self, scope: Scope, request: Request, receive: Receive, send: Send) -> None:
        """Hand a request to the Flask side, which logs and counts it itself."""
        fields = [field for field in request.fields if field[0] != b"x-request-id"]
        fields.append((b"x-request-id", request.request_id.encode("ascii")))
        extra = [(b"server", headers.VIA_NAME), *self._cors(scope, None)]

        async def send_with_ours(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await self._control({**scope, "path": request.target.path, "headers": fields}, receive, send_with_ours)

    def _cors(self, scope: Scope, allow: bytes | None) -> Fields:
        if not self._origins:
            return []
        return headers.cors(
            headers.get(scope["headers"], b"origin"),
            self._origins,
            preflight_allow=None if allow is None or scope["method"] != "OPTIONS" else allow.decode("ascii"),
            wanted=headers.get(scope["headers"], b"access-control-request-headers"),
        )

    async def _send(self, scope: Scope, reply: Reply, made: str, send: Send) -> None:
        fields = [
            *reply.fields,
            (b"x-request-id", made.encode("ascii")),
            (b"server", headers.VIA_NAME),
            *self._cors(scope, headers.get(reply.fields, b"allow")),
        ]
        if reply.stream is None:
            if not has_no_body(scope["method"], reply.status):
                fields.append((b"content-length", b"%d" % len(reply.body)))
            elif reply.length is not None:
                fields.append((b"content-length", reply.length))
            elif scope["method"] == "HEAD" and reply.body:
                fields.append((b"content-length", b"%d" % len(reply.body)))
        start = {"type": "http.response.start", "status": reply.status, "headers": fields}
        if reply.stream is not None:
            try:
                await send(start)
                await _send_stream(reply.stream, reply, send)
            finally:
                # However it ends, a client that left above all, the upstream's connection is not kept for it.
                reply.stream.close()
            return
        await send(start)
        body = b"" if has_no_body(scope["method"], reply.status) else reply.body
        await send({"type": "http.response.body", "body": body})

    def _note(self, scope: Scope, route: str, status: int, seconds: float, notes: Notes) -> None:
        method = scope["method"]
        self._metrics.observe(method=method, route=route, status=status, seconds=seconds)
        told = {
            "method": method,
            "route": route,
            "path": _raw_target(scope).partition("?")[0],
            "status": status,
            "upstream": notes.upstream,
            "circuit": notes.circuit,
            "attempts": notes.attempts,
            "ms": round(seconds * 1000, 1),
        }
        if notes.cause is not None:
            told["cause"] = notes.cause
        log_request("request", told)


def _raw_target(scope: Scope) -> str:
    """The request target as it came; the worker keeps it, because `?` without a query is lost in ASGI."""
    kept = scope.get("siteworks.target")
    if kept is not None:
        return str(kept)
    query = scope["query_string"].decode("latin-1")
    path: str = scope["raw_path"].decode("latin-1")
    return f"{path}?{query}" if query else path


def _refusal(error: AppError) -> Reply:
    fields = [
        _JSON,
        *((name.lower().encode("ascii"), value.encode("latin-1")) for name, value in error.headers.items()),
    ]
    return Reply(status_of(error), fields, dump(failure(error)))


async def _send_stream(answer: Answer, reply: Reply, send: Send) -> None:
    """Pass pieces on as they come. A stream that breaks or runs out of time is cut off, never ended properly."""
    loop = asyncio.get_running_loop()
    try:
        pieces = aiter(answer.pieces())
        while True:
            until = loop.time() + reply.stream_idle
            if reply.stream_ends_at is not None:
                until = min(until, reply.stream_ends_at)
            async with asyncio.timeout_at(until):
                piece = await anext(pieces, None)
            if piece is None:
                break
            # Waits for a client that takes its time, so nothing piles up here; but not for ever.
            async with asyncio.timeout_at(max(until, loop.time() + reply.stream_idle)):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    except (TimeoutError, UpstreamError) as error:
        log.warning("stream_cut_off", cause=repr(error))
