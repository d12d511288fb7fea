"""A stream lasts no longer than the token of whoever watches."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID

from service_tasks.domain.task import State
from service_tasks.domain.watched import WatchedTask
from service_tasks.streams.feed import Feed
from service_tasks.streams.handler import StreamExchange, TaskStreamHandler
from service_tasks.streams.metrics import StreamMetrics
from servicekit.http_server.request import Request, RequestFields
from servicekit.identity.principal import LOCAL, Principal
from servicekit.identity.tokens import InvalidToken
from servicekit.observing.metrics import Metrics
from servicekit.wire.browsers import BrowserRules

ID = UUID(int=7, version=4)
NOW = datetime(2027, 1, 1, tzinfo=UTC)
WAITING = WatchedTask(ID, State.SCHEDULED, "noop", 0, 3, NOW, 0, None, None, None, NOW, NOW, None, None, None)


class Client:
    """Keeps what it is sent."""

    is_behind = False

    def __init__(self) -> None:
        self.text = b""
        self.ended = False

    def start_stream(self, status: int, fields: list, *, endless: bool) -> None:
        assert (status, endless) == (200, True)

    def send_piece(self, data: bytes) -> None:
        self.text += data

    def end_stream(self) -> None:
        self.ended = True


async def watched_with(identify) -> Client:
    feed = Feed(lambda seen: dict.fromkeys(seen, WAITING), interval=0.01, limit=10)
    metrics = Metrics("task_events")
    handler = TaskStreamHandler(
        feed, checks={}, metrics=metrics, stream_metrics=StreamMetrics(metrics.registry, feed), document={},
        keep_alive_seconds=0.01, browsers=BrowserRules(), identify=identify,
    )  # fmt: skip
    client = Client()
    fields = RequestFields([(b"host", b"localhost"), (b"authorization", b"Bearer a.b.c")])
    request = Request("GET", f"/tasks/{ID}/events", "1.1", fields, None, client)
    looking = asyncio.create_task(feed.run())
    try:
        async with asyncio.timeout(10):
            await handler.handle(StreamExchange(request))
    finally:
        looking.cancel()
    assert feed.watchers == 0
    return client


def test_a_stream_ends_when_the_token_does_so_that_the_watcher_shows_another():
    shown: list[str | None] = []

    def identify(authorization: str | None) -> Principal:
        shown.append(authorization)
        if len(shown) > 5:
            raise InvalidToken("The access token has expired.")
        return LOCAL

    client = asyncio.run(watched_with(identify))

    assert client.ended
    assert client.text.startswith(b"retry: ")
    assert client.text.count(b"event: status") == 1
    assert b"event: end" not in client.text
    assert shown == ["Bearer a.b.c"] * 6
