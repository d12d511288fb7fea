"""Clients that want nothing, say it slowly, or want much: `python -m benchmarks.gateway_faults.crowd PORT NUMBER KIND`.

KIND is idle (connected and silent), slow (sends a request's head, one byte a second) or large (asks for 786 KB again
and again). Whoever is cut off connects again. Prints a line when all are connected for the first time, and goes on
until SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import cast

import uvloop

_LARGE = b"GET /users/0193a5b0-7c1e-7a52-8d52-5f0f4d6c1b2a?size=786000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
_HEAD = b"GET /users/0193a5b0-7c1e-7a52-8d52-5f0f4d6c1b2a HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"s" * 10_000
#: Seconds between two bytes of a slow client, and before a refused one tries again.
_PAUSE = 1.0


async def client(port: int, kind: str, connected: asyncio.Event) -> None:
    while True:
        with contextlib.suppress(OSError):
            if kind == "large":
                await _take(port, connected)
            else:
                await _hold(port, kind, connected)
        await asyncio.sleep(_PAUSE)


async def _take(port: int, connected: asyncio.Event) -> None:
    transport, taker = await asyncio.get_running_loop().create_connection(Taker, "127.0.0.1", port)
    connected.set()
    try:
        await taker.left
    finally:
        transport.abort()


async def _hold(port: int, kind: str, connected: asyncio.Event) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connected.set()
    try:
        if kind == "slow":
            await asyncio.gather(_drip(writer), reader.read())
        else:
            await reader.read()
    finally:
        writer.transport.abort()


async def _drip(writer: asyncio.StreamWriter) -> None:
    for at in range(len(_HEAD)):
        if writer.is_closing():
            return
        writer.write(_HEAD[at : at + 1])
        await asyncio.sleep(_PAUSE)


class Taker(asyncio.BufferedProtocol):
    """Asks for a large answer whenever the one before is here, of which it keeps nothing."""

    def __init__(self) -> None:
        self.left = asyncio.get_running_loop().create_future()
        self._buffer = bytearray(256 * 1024)
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._rest = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(_LARGE)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self._rest:
            head, _, begun = bytes(self._buffer[:nbytes]).partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
            self._rest, nbytes = int(length), len(begun)
        self._rest -= nbytes
        if not self._rest:
            self._transport.write(_LARGE)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.left.done():
            self.left.set_result(None)


async def main(port: int, number: int, kind: str) -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    each = [asyncio.Event() for _ in range(number)]
    crowd = [asyncio.create_task(client(port, kind, one)) for one in each]
    for one in each:
        await one.wait()
    print("all connected", flush=True)
    await told.wait()
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
