"""The service behind every gateway under test: `python -m benchmarks.gateway.upstream FAST_PORT SLOW_PORT`.

One canned envelope for any GET, at once on the fast port and after 50 ms on the slow one. It looks for the end of
each request head and at nothing else, so that it costs less than anything in front of it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import cast

import uvloop

SLOW_SECONDS = 0.05

# Without spaces, as the services write it.
_BODY = json.dumps(
    {
        "success": True,
        "data": {
            "id": "0193a5b0-7c1e-7a52-8d52-5f0f4d6c1b2a",
            "name": "Ada Lovelace",
            "email": "ada@example.com",
            "created_at": "2026-01-01T08:00:00Z",
            "updated_at": "2026-01-01T08:00:00Z",
        },
    },
    separators=(",", ":"),
).encode()
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: upstream\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_BODY)
) + _BODY


class PlainUpstream(asyncio.Protocol):
    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._rest = b""
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        heads = data.count(b"\r\n\r\n")
        self._rest = b"" if data.endswith(b"\r\n\r\n") else data[data.rfind(b"\r\n\r\n") + 4 :] if heads else data
        if not heads:
            return
        if self._delay:
            self._loop.call_later(self._delay, self._answer, heads)
        else:
            self._transport.write(_ANSWER * heads)

    def _answer(self, heads: int) -> None:
        if not self._transport.is_closing():  # the load ends in the middle of requests
            self._transport.write(_ANSWER * heads)


async def main(fast_port: int, slow_port: int) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    await loop.create_server(lambda: PlainUpstream(0.0), "127.0.0.1", fast_port, backlog=4096)
    await loop.create_server(lambda: PlainUpstream(SLOW_SECONDS), "127.0.0.1", slow_port, backlog=4096)
    await told.wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
