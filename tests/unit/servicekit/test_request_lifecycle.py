"""What becomes of a request on the event loop, however its handler ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from servicekit.http_server.request import NO_BODY, ClientLeft, Fields, Request, RequestFields
from servicekit.http_server.request_lifecycle import Exchange, ObservedHandler, RequestRecord, error_answer
from servicekit.observing.metrics import Metrics
from servicekit.observing.request_id import current_request_id
from servicekit.wire.errors import AppError, NotFound

Step = Callable[[Exchange], Awaitable[bool]]


class Connection:
    """A client that notes what it was sent."""

    address, scheme, memo, has_answer, is_behind, half_closed = "127.0.0.1", "http", None, False, False, False

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []

    def send(self, status: int, fields: Fields, body: bytes) -> None:
        self.has_answer = True
        self.sent.append((status, body))


class Scripted(ObservedHandler[Exchange]):
    """Does what a test says."""

    def __init__(self, metrics: Metrics, step: Step) -> None:
        super().__init__(RequestRecord(metrics))
        self._step = step

    def begin(self, request: Request) -> Exchange:
        return Exchange(request)

    async def handle(self, exchange: Exchange) -> bool:
        exchange.route = "/pumps"
        return await self._step(exchange)

    def refuse(self, exchange: Exchange, error: AppError) -> None:
        answer = error_answer(error)
        exchange.status = answer.status
        exchange.client.send(answer.status, answer.fields, answer.body)

    def end_streams(self) -> None:
        raise NotImplementedError


async def answers(exchange: Exchange) -> bool:
    exchange.status = 200
    exchange.client.send(200, [], current_request_id().encode())
    return True


async def leaves_it(_: Exchange) -> bool:
    return False


async def refuses(_: Exchange) -> bool:
    raise NotFound


async def crashes(_: Exchange) -> bool:
    raise ZeroDivisionError("SELECT secret")


async def refuses_too_late(exchange: Exchange) -> bool:
    await answers(exchange)
    raise NotFound


async def crashes_too_late(exchange: Exchange) -> bool:
    await answers(exchange)
    raise ZeroDivisionError


async def loses_its_client(_: Exchange) -> bool:
    raise ClientLeft


async def gets_half_a_body(exchange: Exchange) -> bool:
    exchange.client.half_closed = True
    raise ClientLeft


@pytest.mark.parametrize(
    ("step", "sent", "code", "counted"),
    [
        (answers, [200], None, "200"),
        (leaves_it, [], None, None),
        (refuses, [404], "not_found", "404"),
        (crashes, [500], "internal_error", "500"),
        # It has been told a status; a second answer would be read as a part of the first.
        (refuses_too_late, [200], None, "200"),
        (crashes_too_late, [200], None, "200"),
        (loses_its_client, [], None, "499"),
        (gets_half_a_body, [400], "bad_request", "400"),
    ],
)
def test_a_request_is_answered_once_and_counted_once(
    step: Step, sent: list[int], code: str | None, counted: str | None
) -> None:
    metrics, client = Metrics("pumps"), Connection()

    async def main() -> bool:
        request = Request("POST", "/pumps", "1.1", RequestFields([(b"x-request-id", b"seen")]), NO_BODY, client)  # type: ignore[arg-type]
        return await Scripted(metrics, step).answer(request)

    assert asyncio.run(main()) is (step is not leaves_it)
    assert [status for status, _ in client.sent] == sent
    if code is not None:
        assert json.loads(client.sent[0][1])["error"]["code"] == code
        assert b"secret" not in client.sent[0][1]
    elif sent:
        assert client.sent[0][1] == b"seen"
    lines = [
        line for line in metrics.render()[0].decode().splitlines() if line.startswith("siteworks_http_requests_total")
    ]
    assert ['route="/pumps"' in line and f'status="{counted}"' in line for line in lines] == ([True] if counted else [])
