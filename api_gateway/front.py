"""The data path: validates, routes, forwards and answers each client request."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import ClassVar

from api_gateway import headers
from api_gateway.console import PAGE, ConsoleFiles
from api_gateway.errors import ConsoleReadOnly, TooManyCredentials, TooManyStreams
from api_gateway.exchanges import Shown
from api_gateway.forward import Call, Flow, Lane, Notes, Reply, forward, has_no_body
from api_gateway.headers import CREDENTIALS, CREDENTIALS_OF_OPEN, Passed, Peer, TrustedProxies
from api_gateway.identity import ACT_AS, ActAs, Identity, other_cookies
from api_gateway.limits import EventLoopLag, RateLimiter
from api_gateway.metrics import GatewayMetrics
from api_gateway.parts import fields_for_parts, forward_parts
from api_gateway.paths import Target, split_target, without_alias
from api_gateway.refusals import Refusals
from api_gateway.revocations import Revocations
from api_gateway.route_table import SHOWS_MORE, Match, Route, RouteTable
from api_gateway.upstream import Piece, UpstreamAnswer, UpstreamError
from servicekit.http_server.application import AsgiApp, Message, Scope, Send
from servicekit.http_server.request import Fields, Receive, Request, RequestFields, field_lines
from servicekit.http_server.request_lifecycle import Exchange, ObservedHandler, RequestRecord, error_answer
from servicekit.identity.roles import Action
from servicekit.identity.tokens import InvalidToken
from servicekit.observing import request_id
from servicekit.observing.logs import get_logger
from servicekit.observing.metrics import Metrics
from servicekit.wire import deadline
from servicekit.wire.browsers import NOTHING_FOREIGN, OPEN_PATHS, BrowserRules, Verdict
from servicekit.wire.errors import AppError, MethodNotAllowed, NotFound, Overloaded, TooLarge, TooManyRequests
from servicekit.wire.memory import Account, Budget

#: Methods that are sent on with `Content-Length: 0` when there is no body (RFC 9110 section 8.6).
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
#: What is done to log in and out, whatever method it takes.
_OF_LOGINS = frozenset({Action.PUBLIC, Action.OWN_LOGIN})
_SET_FOR_PAGES = frozenset({b"x-real-ip", b"x-request-id"})
#: Why a page of Flask's refuses somebody.
_REASONS = {401: "unauthorized", 403: "forbidden"}
#: Log lines of requests that end within this time, in seconds, are written together.
_LOG_SECONDS = 0.005

_log = get_logger(__name__)


class _ClientCall(Exchange):
    """A client request in progress."""

    __slots__ = ("account", "cookies", "notes", "quota", "shown")

    #: Process memory that the request takes.
    account: Account
    notes: Notes
    #: Header fields about the client's quota.
    quota: Fields
    #: By what its sender is known, where somebody has to log in.
    shown: Shown | None
    #: A field line of the cookies that go on.
    cookies: bytes

    def note(self, values: dict[str, object]) -> None:
        notes = self.notes
        values["path"] = self.request.target.partition("?")[0]
        values["upstream"] = notes.upstream
        values["circuit"] = notes.circuit
        values["attempts"] = notes.attempts
        if notes.cause is not None:
            values["cause"] = notes.cause

    def close(self) -> None:
        if self.account.taken:
            self.account.close()


class Front(ObservedHandler[_ClientCall]):
    """Handles every request but those for the gateway's own pages, which it passes to Flask."""

    CRASH_HEADERS: ClassVar = {"Proxy-Status": "siteworks; error=proxy_internal_error"}

    def __init__(
        self,
        *,
        table: RouteTable,
        lanes: Mapping[str, Lane],
        control: AsgiApp,
        metrics: Metrics,
        trusted: TrustedProxies,
        origins: frozenset[str],
        browsers: BrowserRules,
        gateway_metrics: GatewayMetrics,
        lag: EventLoopLag,
        budget: Budget,
        limiter: RateLimiter | None = None,
        streams_per_client: int,
        console: ConsoleFiles,
        console_read_only: bool = False,
        identity: Identity | ActAs,
        refusals: Refusals | None = None,
    ) -> None:
        """With an `ActAs` everybody may do everything, except whoever acts as somebody. `console_read_only`: pages of
        our own change nothing."""
        self._loop = asyncio.get_running_loop()
        super().__init__(RequestRecord(metrics, later=partial(self._loop.call_later, _LOG_SECONDS)))
        self._table = table
        self._lanes = lanes
        self._control = control
        self._trusted = trusted
        self._origins = origins
        self._browsers = browsers
        self._gateway_metrics = gateway_metrics
        self._lag = lag
        self._budget = budget
        self._limiter = limiter
        #: Open answers without a time limit.
        self._streams: dict[UpstreamAnswer, Shown | None] = {}
        #: How many of them each client has.
        self._streams_of: Counter[str] = Counter()
        self._streams_per_client = streams_per_client
        self._ending = False
        self._console = console
        self._console_read_only = console_read_only
        self._identity = identity
        self._refusals = refusals
        self._is_closed = isinstance(identity, Identity)
        self._stay = CREDENTIALS if self._is_closed else CREDENTIALS_OF_OPEN

    def end_revoked_streams(self, revocations: Revocations) -> None:
        """End the streams of those whose access has been taken away."""
        for stream, shown in self._streams.items():
            if shown is not None and revocations.covers(shown.token):
                stream.end()

    def end_streams(self) -> None:
        """End the answers without a time limit; a client that reconnects reaches another process."""
        self._ending = True
        for stream in self._streams:
            stream.end()

    def begin(self, request: Request) -> _ClientCall:
        call = _ClientCall(request)
        call.account, call.notes, call.quota = Account(self._budget), Notes(), []
        call.shown, call.cookies = None, b""
        return call

    async def handle(self, exchange: _ClientCall) -> bool:
        request = exchange.request
        target = _read_target(request)
        match = self._match(target)
        if target.path not in OPEN_PATHS:
            verdict = request.fields.verdict or self._verdict(request)
            if verdict is not NOTHING_FOREIGN:
                verdict.check(request.method)
        if self._console_read_only and match is not None and request.method not in _READING:
            self._require_no_page(request, match.route)
        asks_who = self._is_closed or ACT_AS in request.fields.first
        if match is not None:
            exchange.route = match.route.template
            if not match.route.upstream and match.route.allows(request.method):
                if asks_who and not self._is_known(exchange, match.route):
                    await self._admit(exchange, match.route)
                file = self._console.answer(target.path, request.fields) if target.path.startswith(PAGE) else None
                if file is None:
                    return False
                self._send(exchange, file)
                if exchange.client.is_behind:
                    await exchange.client.drain()
                exchange.status = file.status
                return True
        # A refused preflight would hide from the page why its request is refused.
        if request.method != "OPTIONS":
            if self._lag.overloaded:
                self._gateway_metrics.refused("", Overloaded.code)
                raise Overloaded
            if self._limiter is not None:
                exchange.quota = self._take_quota(self._limiter, request)
            if (
                asks_who
                and match is not None
                and match.route.allows(request.method)
                and not self._is_known(exchange, match.route)
            ):
                await self._admit(exchange, match.route)
        reply = await self._reply(exchange, target, match)
        if reply.flow is not None:
            await self._send_flow(exchange, reply, reply.flow)
        elif reply.stream is None:
            self._send(exchange, reply)
            if exchange.client.is_behind:
                await exchange.client.drain()
        else:
            await self._send_stream(exchange, reply, reply.stream)
        exchange.status = reply.status
        if reply.code is not None and self._refusals is not None:
            self._refusals.note(reply.status, reply.code, partial(self._whose, request))
        return True

    def refuse(self, exchange: _ClientCall, error: AppError) -> None:
        notes = exchange.notes
        if notes.upstream is not None:
            self._gateway_metrics.refused(notes.upstream, error.code)
        if error.__cause__ is not None and notes.cause is None:
            notes.cause = repr(error.__cause__)
        if isinstance(error, Overloaded):
            error.headers = {**self.CRASH_HEADERS, **error.headers}
        answer = error_answer(error)
        self._send(exchange, Reply(answer.status, [*answer.fields, *headers.GUARDS], answer.body))
        exchange.status = answer.status
        if self._refusals is not None:
            self._refusals.note(answer.status, error.code, partial(self._whose, exchange.request))

    def parser_refused(self, status: int, fields: Fields) -> Fields:
        super().parser_refused(status, fields)
        if not fields and len(self._origins) == 1:
            # Refused before its Origin arrived: no other page may read the answer.
            fields = [(b"origin", origin.encode("latin-1")) for origin in self._origins]
        return headers.GUARDS + self._cors("", RequestFields(fields), None)

    async def page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to Flask, which logs and counts it itself."""
        fields = RequestFields(scope["headers"])
        with request_id.use(request_id.accept_or_make(fields.get(b"x-request-id"))) as made:
            passed = [field for field in fields.pairs if field[0] not in _SET_FOR_PAGES and field[0] not in self._stay]
            passed.append((b"x-request-id", made.encode("ascii")))
            path = split_target(scope["raw_path"].decode("latin-1")).path
            peer, port = scope["client"] or ("", 0)
            client = headers.client_key(headers.client_address(fields.pairs, peer, self._trusted))
            passed.append((b"x-real-ip", client.encode("ascii")))
            passed += await self._token_for_page(scope, fields, path, client)
            extra = [(b"server", headers.VIA_NAME), *self._cors(scope["method"], fields, None)]
            if scope["scheme"] == "https":
                extra += _strict_transport(fields)

            async def send_with_ours(message: Message) -> None:
                if message["type"] == "http.response.start":
                    if self._refusals is not None and (reason := _REASONS.get(message["status"])) is not None:
                        self._refusals.note(message["status"], reason, lambda: client)
                    own = dict(message["headers"])
                    guards = [field for field in headers.GUARDS if field[0] not in own]
                    message = {**message, "headers": [*message["headers"], *guards, *extra]}
                await send(message)

            ours = {"path": path, "headers": passed, "client": (client, port)}
            await self._control({**scope, **ours}, receive, send_with_ours)

    async def _token_for_page(self, scope: Scope, fields: RequestFields, path: str, client: str) -> Fields:
        """The field by which Flask learns who sends a request that was admitted a moment ago."""
        match, method = self._table.match(path), scope["method"]
        if match is None or not match.route.allows(method):
            return []
        action, acts = match.route.action(method), ACT_AS in fields.first
        if not self._is_closed and not acts:
            # That page has a token of its own.
            return [pair for pair in fields.pairs if pair[0] == b"authorization" and action is Action.OPERATE_SYSTEM]
        if action is Action.PUBLIC and match.route.template != SHOWS_MORE:
            return []
        secure = scope["scheme"] == "https"
        with suppress(AppError):
            shown = await self._identity.sender(method, fields, secure=secure, whose=lambda: client)
            return [] if shown is None else [(b"authorization", shown.value)]
        # Whoever acts as somebody is not taken for nobody, who may do everything.
        return [(b"authorization", b"")] if acts else []

    def _is_known(self, exchange: _ClientCall, route: Route) -> bool:
        request = exchange.request
        exchange.shown = self._identity.known(request.fields, route.action(request.method))
        return exchange.shown is not None

    async def _admit(self, exchange: _ClientCall, route: Route) -> None:
        """Find out who sends a request; raises unless they may."""
        request = exchange.request
        try:
            exchange.shown = await self._identity.of(
                request.method,
                request.fields,
                route.action(request.method),
                secure=exchange.client.scheme == "https",
                whose=lambda: self._whose(request),
            )
        except AppError as error:
            self._gateway_metrics.refused("", error.code)
            if isinstance(error, InvalidToken | TooManyCredentials):
                exchange.timed = time.perf_counter() - exchange.began
                await self._identity.slow_down(lambda: self._whose(request))
            raise
        if exchange.shown is None:
            exchange.cookies = other_cookies(request.fields)

    def _require_no_page(self, request: Request, route: Route) -> None:
        """Raise `ConsoleReadOnly` for what a page of our own would change. A browser says whether a page sends it, and
        the page cannot."""
        origin, method = request.fields.get(b"origin"), request.method
        is_from_page = origin is not None or b"sec-fetch-site" in request.fields.first
        is_own = is_from_page and origin not in self._origins
        if is_own and route.allows(method) and route.action(method) not in _OF_LOGINS:
            raise ConsoleReadOnly

    def _match(self, target: Target) -> Match | None:
        path = without_alias(target.path)
        match = self._table.match(path)
        if match is not None and not match.route.upstream and path != target.path:
            return None  # the gateway's own pages have no alias
        target.path = path
        return match

    def _verdict(self, request: Request) -> Verdict:
        """Judge whether a browser sends the request for a foreign page."""
        fields = request.fields
        host, origin, site = (fields.get(name) for name in (b"host", b"origin", b"sec-fetch-site"))
        if b"x-forwarded-host" in fields.first and request.client.address in self._trusted:
            forwarded = b",".join(value for name, value in fields.pairs if name == b"x-forwarded-host")
            return self._browsers.verdict(host, origin, site, forwarded.decode("latin-1"))
        verdict = self._browsers.verdict(host, origin, site)
        if b"x-forwarded-host" not in fields.first:
            # Requests with equal heads share these fields, whoever sent them.
            fields.verdict = fields.common.verdict = verdict
        return verdict

    def _passed(self, request: Request) -> Passed:
        """The forwarded part of the request's head, reused while the connection repeats its head."""
        # Without the credential, which stays here.
        client, fields = request.client, request.fields.common
        passed: Passed | None = client.memo
        if passed is None or passed.of is not fields:
            host = fields.hosts[0].decode("latin-1") if fields.hosts else ""
            peer = Peer(client.address, client.scheme, host, client.address in self._trusted)
            if peer.trusted:
                address = headers.client_address(fields.pairs, peer.address, self._trusted)
                peer.client = "" if address == peer.address else address
            passed = client.memo = Passed(fields, peer, request.http_version, without=self._stay)
        return passed

    def _whose(self, request: Request) -> str:
        """What counts as one client."""
        address = headers.client_address(request.fields.pairs, request.client.address, self._trusted)
        return headers.client_key(address)

    def _take_stream(self, request: Request) -> str:
        """Count a stream of its client, which is returned; raises TooManyStreams."""
        whose = self._whose(request)
        if self._streams_of[whose] >= self._streams_per_client:
            self._gateway_metrics.refused("", TooManyStreams.code)
            raise TooManyStreams
        self._streams_of[whose] += 1
        return whose

    def _take_quota(self, limiter: RateLimiter, request: Request) -> Fields:
        """Count a request against its client's quota; returns the header fields, or raises TooManyRequests."""
        allowance = limiter.take(self._whose(request), time.monotonic())
        fields = {"RateLimit-Policy": limiter.quota.policy, "RateLimit": allowance.field}
        if not allowance.allowed:
            self._gateway_metrics.refused("", TooManyRequests.code)
            raise TooManyRequests(headers={**fields, "Retry-After": str(allowance.seconds)})
        return [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in fields.items()]

    async def _reply(self, exchange: _ClientCall, target: Target, match: Match | None) -> Reply:
        request = exchange.request
        if target.path == "*":
            return Reply(204, [(b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")])
        if match is None:
            raise NotFound
        route = match.route
        if request.method == "OPTIONS":
            return Reply(204, [(b"allow", route.allow.encode("ascii"))])
        if not route.allows(request.method):
            raise MethodNotAllowed(headers={"Allow": route.allow})
        body = None
        if request.body.present:
            body = await request.body.read(route.limits.body, exchange.account)
        elif request.method in _WITH_BODY:
            body = b""
        total = deadline.shortened(request.fields.get(b"x-request-timeout-ms"), route.limits.total)
        passed = self._passed(request)
        sent = field_lines(fields_for_parts(passed.fields)) if route.parts else passed.lines
        sent += headers.lines_of_this_request(exchange.request_id, passed.traceparent)
        sent += exchange.cookies if exchange.shown is None else exchange.shown.line
        call = Call(
            method=request.method,
            target=target.raw,
            fields=sent,
            body=body,
            limits=route.limits,
            ends_at=self._loop.time() + total,
            shortened=total < route.limits.total,
            account=exchange.account,
            in_pieces=request.http_version != "1.0",
        )
        if route.parts:
            return await forward_parts(self._lanes, match, call, exchange.notes)
        return await forward(self._lanes[route.upstream], call, exchange.notes)

    def _cors(self, method: str, fields: RequestFields, allow: bytes | None) -> Fields:
        return headers.cors(
            fields.first.get(b"origin"),
            self._origins,
            preflight_allow=None if allow is None or method != "OPTIONS" else allow.decode("ascii"),
            wanted=fields.first.get(b"access-control-request-headers"),
        )

    def _sent_fields(self, exchange: _ClientCall, reply: Reply) -> Fields:
        made = exchange.request_id.encode("ascii")
        fields = reply.fields
        fields += (*exchange.quota, (b"x-request-id", made), (b"server", headers.VIA_NAME))
        if exchange.client.scheme == "https":
            fields += _strict_transport(exchange.request.fields)
        if self._origins:
            request = exchange.request
            fields += self._cors(request.method, request.fields, headers.get(reply.fields, b"allow"))
        return fields

    def _send(self, exchange: _ClientCall, reply: Reply) -> None:
        fields, body, method = self._sent_fields(exchange, reply), reply.body, exchange.request.method
        if not has_no_body(method, reply.status):
            fields.append((b"content-length", b"%d" % len(body)))
        else:
            if reply.status != 204 and (reply.length is not None or body):
                fields.append((b"content-length", reply.length or b"%d" % len(body)))
            body = b""
        exchange.client.send(reply.status, fields, body)

    async def _send_flow(self, exchange: _ClientCall, reply: Reply, flow: Flow) -> None:
        """Pass a large answer on as it arrives. What a slow client leaves is held here, so that it keeps no place at
        the upstream."""
        client, account, counted = exchange.client, exchange.account, flow.ahead
        fields = self._sent_fields(exchange, reply)
        if flow.length is not None:
            fields.append((b"content-length", b"%d" % flow.length))

        def pass_on(piece: Piece) -> bool:
            nonlocal counted
            # A client that is behind keeps no more than it has to, and not the buffer.
            was_behind = client.unsent > 0
            client.send_piece(bytes(piece) if was_behind else piece)
            held = flow.ahead + client.unsent
            if held < counted:
                account.give_back(counted - held)
                counted = held
            elif flow.length is None:
                account.take(held - counted)
                counted = held
            return not was_behind and client.unsent > 0

        try:
            client.start_stream(reply.status, fields)
            await flow.pour(pass_on)
            client.end_stream()
            flow.close()
            if client.is_behind:
                await client.drain()
        except (TimeoutError, UpstreamError, Overloaded, TooLarge) as error:
            exchange.notes.cause = repr(error)
            _log.warning("stream_cut_off", cause=repr(error))
            client.cut_off()
        finally:
            flow.close()

    async def _send_stream(self, exchange: _ClientCall, reply: Reply, stream: UpstreamAnswer) -> None:
        """Pass pieces on as they arrive. A stream that breaks or times out is cut off, never ended properly."""
        client = exchange.client
        endless = reply.stream_ends_at is None
        whose = None
        try:
            if endless:
                whose = self._take_stream(exchange.request)
                self._streams[stream] = exchange.shown
                if self._ending:
                    stream.end()
            client.start_stream(reply.status, self._sent_fields(exchange, reply), endless=endless)
            pieces = aiter(stream.pieces())
            while True:
                until = self._loop.time() + reply.stream_idle
                if reply.stream_ends_at is not None:
                    until = min(until, reply.stream_ends_at)
                async with asyncio.timeout_at(until):
                    piece = await anext(pieces, None)
                if piece is None:
                    break
                client.send_piece(piece)
                if client.is_behind:
                    # Waits for a slow client, so that nothing piles up here; but not forever.
                    async with asyncio.timeout_at(max(until, self._loop.time() + reply.stream_idle)):
                        await client.drain()
            client.end_stream()
        except (TimeoutError, UpstreamError) as error:
            _log.warning("stream_cut_off", cause=repr(error))
        finally:
            # However it ends (usually the client left), the upstream's connection is not kept.
            self._streams.pop(stream, None)
            stream.close()
            if whose is not None:
                self._streams_of[whose] -= 1
                if not self._streams_of[whose]:
                    del self._streams_of[whose]


def _read_target(request: Request) -> Target:
    """The request's target; raises BadPath, or BadRequest unless there is a single Host."""
    request.check_fields()
    return Target("*", None) if request.target == "*" else split_target(request.target)


def _strict_transport(fields: RequestFields) -> Fields:
    return headers.strict_transport(fields.hosts[0]) if fields.hosts else []
