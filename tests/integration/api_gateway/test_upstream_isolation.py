"""No byte of one answer ever reaches the reader of another, however late a body is read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from api_gateway.upstream import Upstream


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """UpstreamAnswer every request on a kept connection with its own target, in one segment."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            target = head.split(b" ", 2)[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(target), target))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionResetError):
        writer.close()


async def _with_upstream(use: Callable[[Upstream], Awaitable[None]]) -> None:
    served: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.ensure_future(_echo(reader, writer)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    upstream = Upstream("echo", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        await asyncio.wait_for(use(upstream), 30)
    finally:
        upstream.close()
        await asyncio.gather(*served)
        server.close()
        await server.wait_closed()


def test_a_body_read_after_its_connection_served_others_is_still_its_own():
    async def use(upstream: Upstream) -> None:
        first = await upstream.exchange("GET", b"/first", b"", None, connect=1)
        second = await upstream.exchange("GET", b"/second", b"", None, connect=1)
        assert await second.read(100) == b"/second"
        assert await first.read(100) == b"/first"

    asyncio.run(_with_upstream(use))


def test_leaving_an_answer_does_not_touch_the_exchange_that_uses_its_connection_now():
    async def use(upstream: Upstream) -> None:
        first = await upstream.exchange("GET", b"/first", b"", None, connect=1)
        second = await upstream.exchange("GET", b"/second", b"", None, connect=1)
        first.close()
        assert await second.read(100) == b"/second"
        third = await upstream.exchange("GET", b"/third", b"", None, connect=1)
        assert await third.read(100) == b"/third"

    asyncio.run(_with_upstream(use))


def test_two_thousand_exchanges_by_fifty_readers_at_once_each_get_their_own_answer():
    async def use(upstream: Upstream) -> None:
        async def one(reader: int) -> None:
            for number in range(40):
                target = b"/%d/%d" % (reader, number)
                answer = await upstream.exchange("GET", target, b"", None, connect=5)
                for _ in range(number % 4):
                    await asyncio.sleep(0)  # let others take the connection first
                assert await answer.read(100) == target

        await asyncio.gather(*(one(reader) for reader in range(50)))

    asyncio.run(_with_upstream(use))
