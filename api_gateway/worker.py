"""gunicorn's own `asgi` worker with what a public door needs besides: enveloped refusals of the HTTP parser,
a deadline for request heads, no WebSockets, and idle connections closed at once when it is told to stop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from api_gateway.errors import BadRequest, HeadersTooLarge, NotSupported, RequestTimeout, UriTooLong
from servicekit.envelope import dump, failure
from servicekit.errors import AppError
from servicekit.logs import get_logger
from servicekit.request_id import accept_or_make

#: A request head must be complete within this time, in seconds, from the start of its connection or, on one that has
#: served, from its first byte.
HEAD_SECONDS = 10.0

#: A connection that was closed has this long, in seconds, to take what was sent on it.
LINGER_SECONDS = 60.0
#: A new connection on which nothing was said is closed this long, in seconds, after the worker was told to stop: its
#: request may be on the way.
FRESH_SECONDS = 1.0

_REFUSALS: dict[int, type[AppError]] = {
    400: BadRequest,
    408: RequestTimeout,
    414: UriTooLong,
    431: HeadersTooLarge,
    501: NotSupported,
}

log = get_logger(__name__)


class GatewayProtocol(ASGIProtocol):  # type: ignore[misc]  # gunicorn ships no types
    """One client connection."""

    _head_timer: asyncio.TimerHandle | None = None
    _linger_timer: asyncio.TimerHandle | None = None
    _received = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
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
        super().data_received(data)

    def _feed_callback_parser(self, data: bytes) -> bool:
        # Also called with what came while the request before was being answered.
        goes_on = bool(super()._feed_callback_parser(data))
        if goes_on and self._head_timer is None and not self._request_ready.is_set():
            self._head_timer = self.worker.loop.call_later(HEAD_SECONDS, self._head_late)
        return goes_on

    def close_if_idle(self, *, fresh: bool) -> None:
        """Close a connection on which no request is under way: a kept one, or a fresh one that has said nothing."""
        if self._awaiting_request and (not self._received if fresh else self.req_count > 1):
            self._close_transport()

    def _close_transport(self) -> None:
        super()._close_transport()
        # A client that takes nothing would hold its answer in our memory for ever.
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

    def _build_http_scope(self, request: Any, sockname: Any, peername: Any) -> dict[str, Any]:
        scope: dict[str, Any] = super()._build_http_scope(request, sockname, peername)
        scope["siteworks.target"] = request.uri
        return scope

    def _is_websocket_upgrade(self, request: Any) -> bool:
        return False

    def _send_error_response(self, status: int, message: str, extra_headers: Sequence[tuple[str, str]] = ()) -> None:
        """Refuse in the envelope. `message` is the parser's and may quote the request: it stays in the log."""
        error = _REFUSALS.get(status, AppError)()
        body = dump(failure(error))
        made = accept_or_make(None)
        self.app.parser_refused(status)
        log.info("request_refused", status=status, code=error.code, cause=message, request_id=made)
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "Server: siteworks",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            f"X-Request-ID: {made}",
            *(f"{name}: {value}" for name, value in extra_headers),
            "Connection: close",
        ]
        self._safe_write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


class GatewayWorker(gasgi.ASGIWorker):  # type: ignore[misc]  # gunicorn ships no types
    """The worker named in gunicorn.conf.py."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[GatewayProtocol] = set()

    def init_process(self) -> None:
        # The worker's serving loop names this class itself; the change is seen by this process alone.
        gasgi.ASGIProtocol = GatewayProtocol
        super().init_process()

    def _setup_event_loop(self) -> None:
        super()._setup_event_loop()
        # Event loops listen anew, with room for a hundred connections, whatever gunicorn's `backlog` says; of a
        # thousand that come at once the others would wait a second for their next try.
        self.loop.create_server = functools.partial(self.loop.create_server, backlog=self.cfg.backlog)

    async def _shutdown(self) -> None:
        self.asgi.end_streams()
        self._close_idle(fresh=False)
        self.loop.call_later(FRESH_SECONDS, lambda: self._close_idle(fresh=True))
        await super()._shutdown()

    def _close_idle(self, *, fresh: bool) -> None:
        for connection in list(self.connections):
            connection.close_if_idle(fresh=fresh)
