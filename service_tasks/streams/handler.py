"""Answers the streams of tasks, and the process's own pages."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

from service_tasks.domain.watched import Watch, WatchedTask
from service_tasks.streams import stream
from service_tasks.streams.feed import Feed, TaskSnapshot, TaskWatcher
from service_tasks.streams.metrics import StreamMetrics
from service_tasks.streams.routes import LAST_EVENT_ID
from servicekit.http_server.request import Fields, Request
from servicekit.http_server.request_lifecycle import Exchange, ObservedHandler, RequestRecord, error_answer, log_failure
from servicekit.identity.enforcement import OpenToAll
from servicekit.identity.principal import LOCAL, Identify, Principal
from servicekit.identity.roles import Action
from servicekit.observing.metrics import Metrics
from servicekit.web.health import Check, readiness
from servicekit.web.schemas import id_from_path
from servicekit.wire import deadline
from servicekit.wire.browsers import BrowserRules
from servicekit.wire.envelope import dump, success
from servicekit.wire.errors import AppError, DeadlineExceeded, MethodNotAllowed, NotFound, Unauthorized

ROUTE = "/tasks/{id}/events"
#: The longest wait for the first state of a task, in seconds.
FIRST_SECONDS = 5.0
#: How long a client should wait before it reconnects, in milliseconds: longer than a restart takes.
RETRY_MS = 3000
#: The same when this process ends, at random between the two, so that clients do not reconnect all at once.
RETRY_AFTER_END_MS = (2000, 6000)

_PATH = re.compile(r"/tasks/([^/]+)/events")
_STREAM_FIELDS: Fields = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    # Without it nginx and the like would buffer the answer.
    (b"x-accel-buffering", b"no"),
]
_JSON = (b"content-type", b"application/json")


class StreamExchange(Exchange):
    """One request for a stream or a page."""

    __slots__ = ("events",)

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        #: The number of events sent.
        self.events = 0

    def note(self, values: dict[str, object]) -> None:
        values["events"] = self.events


class TaskStreamHandler(ObservedHandler[StreamExchange]):
    """Runs on the event loop, so that a stream costs no thread."""

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
        identify: Identify | None = None,
    ) -> None:
        super().__init__(RequestRecord(metrics))
        self._feed = feed
        self._checks = checks
        self._metrics = metrics
        self._stream_metrics = stream_metrics
        self._keep_alive = keep_alive_seconds
        self._browsers = browsers
        self._identify = identify
        self._service = metrics.service
        self._document = dump(document)
        self._pages = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._show_metrics,
            "/openapi.json": self._openapi,
        }
        # A check may hang with the database; further checks then queue, and streams go on.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checks")

    def begin(self, request: Request) -> StreamExchange:
        return StreamExchange(request)

    async def handle(self, exchange: StreamExchange) -> bool:
        request = exchange.request
        request.check_fields()
        field = request.fields.get
        path = unquote(request.target.partition("?")[0])
        self._browsers.check(request.method, path, field(b"host"), field(b"origin"), field(b"sec-fetch-site"))
        page = self._pages.get(path)
        found = _PATH.fullmatch(path)
        if page is None and found is None:
            raise NotFound
        exchange.route = ROUTE if page is None else path
        if request.method not in {"GET", "HEAD"}:
            raise MethodNotAllowed(headers={"Allow": "GET, HEAD"})
        if page is not None:
            await page(exchange)
        elif found is not None:
            await self._stream(exchange, found[1])
        return True

    def refuse(self, exchange: StreamExchange, error: AppError) -> None:
        log_failure(error)
        answer = error_answer(error)
        self._send(exchange, answer.status, answer.fields, answer.body)

    def end_streams(self) -> None:
        """End every stream with a `retry`, which tells when to reconnect."""
        self._feed.close()

    def _head(self, exchange: StreamExchange, status: int, fields: Fields) -> Fields:
        """Note the start of the answer, up to which the metric times; return its fields."""
        exchange.status = status
        exchange.timed = time.perf_counter() - exchange.began
        return [*fields, (b"x-request-id", exchange.request_id.encode("ascii"))]

    def _send(self, exchange: StreamExchange, status: int, fields: Fields, body: bytes) -> None:
        fields = self._head(exchange, status, [*fields, (b"content-length", b"%d" % len(body))])
        exchange.client.send(status, fields, b"" if exchange.request.method == "HEAD" else body)

    async def _stream(self, exchange: StreamExchange, raw_id: str) -> None:
        fields = exchange.request.fields
        if isinstance(self._identify, OpenToAll) and b"authorization" in fields.first:
            # The first asks for the keys.
            await asyncio.to_thread(self._identify.verifier)
        reach = self._caller(exchange.request).reach(Action.READ_TASKS)
        task_id = id_from_path("id", raw_id)
        seconds = deadline.shortened(fields.get(b"x-request-timeout-ms"), FIRST_SECONDS)
        if seconds <= 0:
            raise DeadlineExceeded
        with TaskWatcher(self._feed, Watch(task_id, reach)) as watcher:
            seen = await watcher.first(seconds)
            known = stream.last_event_version(fields.get(LAST_EVENT_ID.lower().encode("ascii")))
            if known == seen.version and seen.is_last:
                # Only a 204 keeps a browser's EventSource from reconnecting for ever.
                head = self._head(exchange, 204, [(b"cache-control", b"no-store")])
                exchange.client.send(204, head, b"")
            elif exchange.request.method == "HEAD":
                exchange.client.send(200, self._head(exchange, 200, _STREAM_FIELDS), b"")
            else:
                exchange.client.start_stream(200, self._head(exchange, 200, _STREAM_FIELDS), endless=True)
                await self._follow(exchange, watcher, seen, known)
                exchange.client.end_stream()

    def _caller(self, request: Request) -> Principal:
        """Who asks; raises `Unauthorized` unless that is certain."""
        if self._identify is None:
            return LOCAL
        # Of two, neither counts.
        shown = [value.decode("latin-1") for name, value in request.fields.pairs if name == b"authorization"]
        return self._identify(", ".join(shown) if shown else None)

    async def _follow(
        self, exchange: StreamExchange, watcher: TaskWatcher, seen: TaskSnapshot, known: int | None
    ) -> None:
        """Send changes until the last one, or until the token is no longer good: whoever has another comes back."""
        await _write(exchange, stream.retry(RETRY_MS))
        if known == seen.version:
            await _write(exchange, stream.NO_NEWS)
        else:
            await self._write_events(exchange, seen, None)
        while not seen.is_last:
            newer = await watcher.after(seen.version, self._keep_alive)
            try:
                self._caller(exchange.request)
            except Unauthorized:
                return
            if newer is not None:
                await self._write_events(exchange, newer, seen.task)
                seen = newer
            elif watcher.closing:
                await _write(exchange, stream.retry(random.randint(*RETRY_AFTER_END_MS)))
                return
            else:
                await _write(exchange, stream.KEEP_ALIVE)

    async def _write_events(self, exchange: StreamExchange, now: TaskSnapshot, before: WatchedTask | None) -> None:
        events = stream.events_of(now, before)
        for name, _ in events:
            self._stream_metrics.sent(name)
        exchange.events += len(events)
        if events:
            await _write(exchange, b"".join(text for _, text in events))

    # The process's own pages

    async def _livez(self, exchange: StreamExchange) -> None:
        self._show(exchange, {"status": "alive", "service": self._service})

    async def _readyz(self, exchange: StreamExchange) -> None:
        loop = asyncio.get_running_loop()
        self._show(exchange, await loop.run_in_executor(self._thread, readiness, self._checks))

    async def _show_metrics(self, exchange: StreamExchange) -> None:
        body, media_type = self._metrics.render()
        self._send(exchange, 200, [(b"content-type", media_type.encode("ascii"))], body)

    async def _openapi(self, exchange: StreamExchange) -> None:
        self._send(exchange, 200, [_JSON], self._document)

    def _show(self, exchange: StreamExchange, data: Mapping[str, Any]) -> None:
        self._send(exchange, 200, [_JSON], dump(success(data)))


async def _write(exchange: StreamExchange, data: bytes) -> None:
    exchange.client.send_piece(data)
    if exchange.client.is_behind:
        await exchange.client.drain()
