"""The HTTP door of the event streams: an ASGI application, because a stream must cost no thread."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from service_tasks.domain.watched import WatchedTask
from service_tasks.streams import stream
from service_tasks.streams.feed import Feed, TaskSnapshot, Watcher
from service_tasks.streams.metrics import StreamMetrics
from service_tasks.streams.routes import LAST_EVENT_ID
from servicekit.observing import request_id
from servicekit.observing.logs import get_logger
from servicekit.observing.metrics import UNMATCHED, Metrics
from servicekit.web.health import Check, readiness
from servicekit.web.schemas import id_from_path
from servicekit.wire import deadline
from servicekit.wire.browsers import OPEN_PATHS, BrowserRules
from servicekit.wire.envelope import dump, failure, status_of, success
from servicekit.wire.errors import AppError, DeadlineExceeded, MethodNotAllowed, NotFound

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ROUTE = "/tasks/{id}/events"
#: The longest wait for a first look at the task, in seconds.
FIRST_SECONDS = 5.0
#: A client that takes nothing for this long, in seconds, is given up.
STALLED_SECONDS = 60.0
#: How long a reader should wait before it comes back, in milliseconds: longer than a restart takes.
RETRY_MS = 3000
#: The same when this process ends, at random between the two: a thousand readers should not come back as one.
RETRY_AFTER_END_MS = (2000, 6000)

_PATH = re.compile(r"/tasks/([^/]+)/events")
_STREAM_FIELDS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    # nginx and its like would keep an answer back until there is enough of it.
    "X-Accel-Buffering": "no",
}
_log = get_logger(__name__)


@dataclass(slots=True)
class _Exchange:
    """One request, and what is known of its answer so far."""

    scope: Scope
    send: Send
    request_id: str
    began: float
    route: str = UNMATCHED
    status: int = 0
    #: From the request to the head of its answer.
    seconds: float = 0.0
    events: int = 0

    def field(self, name: str) -> str | None:
        wanted = name.lower().encode("ascii")
        return next((value.decode("latin-1") for key, value in self.scope["headers"] if key == wanted), None)

    async def start(self, status: int, fields: Mapping[str, str]) -> None:
        self.status = status
        self.seconds = time.monotonic() - self.began
        told = {**fields, request_id.HEADER: self.request_id}
        headers = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in told.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def answer(self, status: int, body: bytes, media_type: str, fields: Mapping[str, str] | None = None) -> None:
        length = {"Content-Type": media_type, "Content-Length": str(len(body))}
        await self.start(status, {**length, **(fields or {})})
        await self.send({"type": "http.response.body", "body": b"" if self.scope["method"] == "HEAD" else body})


class Door:
    """Answers the streams and the process's own pages."""

    def __init__(
        self,
        feed: Feed,
        *,
        checks: Mapping[str, Check],
        metrics: Metrics,
        stream_metrics: StreamMetrics,
        document: Mapping[str, Any],
        keep_alive_seconds: float,
        browsers: BrowserRules,
    ) -> None:
        self._feed = feed
        self._checks = checks
        self._metrics = metrics
        self._stream_metrics = stream_metrics
        self._keep_alive = keep_alive_seconds
        self._browsers = browsers
        self._service = metrics.service
        self._document = dump(document)
        self._pages = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._show_metrics,
            "/openapi.json": self._openapi,
        }
        # A check may hang with the database; those who ask meanwhile wait for their turn, the streams for nobody.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checks")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(scope, send, "", time.monotonic())
        given = exchange.field(request_id.HEADER)
        with request_id.use(request_id.accept_or_make(given)) as made:
            exchange.request_id = made
            try:
                await self._serve(exchange)
            finally:
                self._note(exchange)

    async def _serve(self, exchange: _Exchange) -> None:
        try:
            await self._route(exchange)
        except AppError as error:
            status = status_of(error)
            if status >= 500:
                _log.warning("request_failed", code=error.code, cause=repr(error.__cause__))
            await _refuse(exchange, error)
        except Exception:  # a fault of ours: it must reach the log, and the client as a 500 envelope
            _log.exception("request_crashed")
            if exchange.status:
                raise
            await _refuse(exchange, AppError())

    async def _route(self, exchange: _Exchange) -> None:
        path: str = exchange.scope["path"]
        if path not in OPEN_PATHS:
            host, origin, site = exchange.field("Host"), exchange.field("Origin"), exchange.field("Sec-Fetch-Site")
            self._browsers.verdict(host, origin, site).check(exchange.scope["method"])
        page = self._pages.get(path)
        found = _PATH.fullmatch(path)
        if page is None and found is None:
            raise NotFound
        exchange.route = ROUTE if page is None else path
        if exchange.scope["method"] not in {"GET", "HEAD"}:
            raise MethodNotAllowed(headers={"Allow": "GET, HEAD"})
        if page is not None:
            await page(exchange)
        elif found is not None:
            await self._stream(exchange, found[1])

    async def _stream(self, exchange: _Exchange, raw_id: str) -> None:
        task_id = id_from_path("id", raw_id)
        left = deadline.seconds_from_header(exchange.field(deadline.HEADER))
        seconds = FIRST_SECONDS if left is None else min(left, FIRST_SECONDS)
        if seconds <= 0:
            raise DeadlineExceeded
        with Watcher(self._feed, task_id) as watcher:
            sight = await watcher.first(seconds)
            known = stream.last_event_version(exchange.field(LAST_EVENT_ID))
            if known == sight.version and sight.is_last:
                # The one answer that keeps a browser's EventSource from coming back for ever.
                await exchange.start(204, {"Cache-Control": "no-store"})
                await exchange.send({"type": "http.response.body", "body": b""})
                return
            await exchange.start(200, _STREAM_FIELDS)
            if exchange.scope["method"] == "HEAD":
                await exchange.send({"type": "http.response.body", "body": b""})
                return
            try:
                await self._follow(exchange, watcher, sight, known)
            except TimeoutError:
                # Left without its end, the stream is cut off.
                _log.info("watcher_given_up", events=exchange.events)

    async def _follow(self, exchange: _Exchange, watcher: Watcher, sight: TaskSnapshot, known: int | None) -> None:
        """Write what changes until there is nothing more to come."""
        await self._write(exchange, stream.retry(RETRY_MS))
        if known == sight.version:
            await self._write(exchange, stream.NO_NEWS)
        else:
            await self._tell(exchange, sight, None)
        told = sight.task
        while not sight.is_last:
            newer = await watcher.after(sight.version, self._keep_alive)
            if newer is not None:
                await self._tell(exchange, newer, told)
                sight, told = newer, newer.task
            elif watcher.closing:
                await self._write(exchange, stream.retry(random.randint(*RETRY_AFTER_END_MS)))
                break
            else:
                await self._write(exchange, stream.KEEP_ALIVE)
        await exchange.send({"type": "http.response.body", "body": b""})

    async def _tell(self, exchange: _Exchange, sight: TaskSnapshot, told: WatchedTask | None) -> None:
        events = stream.events_of(sight, told)
        for name, _ in events:
            self._stream_metrics.told(name)
        exchange.events += len(events)
        if events:
            await self._write(exchange, b"".join(text for _, text in events))

    async def _write(self, exchange: _Exchange, data: bytes) -> None:
        async with asyncio.timeout(STALLED_SECONDS):
            await exchange.send({"type": "http.response.body", "body": data, "more_body": True})

    # The process's own pages

    async def _livez(self, exchange: _Exchange) -> None:
        await _show(exchange, {"status": "alive", "service": self._service})

    async def _readyz(self, exchange: _Exchange) -> None:
        loop = asyncio.get_running_loop()
        await _show(exchange, await loop.run_in_executor(self._thread, readiness, self._checks))

    async def _show_metrics(self, exchange: _Exchange) -> None:
        body, media_type = self._metrics.render()
        await exchange.answer(200, body, media_type)

    async def _openapi(self, exchange: _Exchange) -> None:
        await exchange.answer(200, self._document, "application/json")

    def _note(self, exchange: _Exchange) -> None:
        method = exchange.scope["method"]
        if exchange.status:
            self._metrics.observe(method=method, route=exchange.route, status=exchange.status, seconds=exchange.seconds)
        # Asked every few seconds by machines: worth a metric, not a line.
        if exchange.route not in OPEN_PATHS:
            _log.info(
                "request",
                method=method,
                route=exchange.route,
                status=exchange.status,
                events=exchange.events,
                ms=round((time.monotonic() - exchange.began) * 1000, 1),
            )


async def _show(exchange: _Exchange, data: Mapping[str, Any]) -> None:
    await exchange.answer(200, dump(success(data)), "application/json")


async def _refuse(exchange: _Exchange, error: AppError) -> None:
    await exchange.answer(status_of(error), dump(failure(error)), "application/json", error.headers)
