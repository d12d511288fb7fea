"""The service behind every gateway under test: `python -m benchmarks.gateway.upstream FAST_PORT SLOW_PORT`.

One canned envelope for any GET, at once on the fast port and after 50 ms on the slow one; of BYTES bytes for a target
that ends in `?size=BYTES`. It looks for that and the end of each request head and at nothing else, so that it costs
less than anything in front of it.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from functools import cache
from typing import cast

import uvloop

SLOW_SECONDS = 0.05

_ROW = json.dumps(
    {
        "id": "0193a5b0-7c1e-7a52-8d52-5f0f4d6c1b2a",
        "name": "Ada Lovelace",
        "email": "ada@example.com",
        "created_at": "2026-01-01T08:00:00Z",
        "updated_at": "2026-01-01T08:00:00Z",
    },
    separators=(",", ":"),
).encode()
_SIZE = re.compile(rb"\?size=(\d{1,8}) ")


def _answer_of(body: bytes) -> bytes:
    fields = b"Server: upstream\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return b"HTTP/1.1 200 OK\r\n" + fields + body


_ANSWER = _answer_of(b'{"success":true,"data":%b}' % _ROW)


@cache
def _page(size: int) -> bytes:
    """An answer whose body is a page of rows, and a text that makes it that many bytes."""
    begin, end = b'{"success":true,"data":[', b'"]}'
    begin += (_ROW + b",") * ((size - len(begin + end) - 1) // len(_ROW + b",")) + b'"'
    return _answer_of(begin.ljust(size - len(end), b"x") + end)


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
        sized = _SIZE.search(data)
        answer = _ANSWER if sized is None else _page(int(sized[1]))
        if self._delay:
            self._loop.call_later(self._delay, self._answer, answer * heads)
        else:
            self._transport.write(answer * heads)

    def _answer(self, answers: bytes) -> None:
        if not self._transport.is_closing():  # the load ends in the middle of requests
            self._transport.write(answers)


async def main(fast_port: int, slow_port: int) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    await loop.create_server(lambda: PlainUpstream(0.0), "127.0.0.1", fast_port, backlog=4096)
    await loop.create_server(lambda: PlainUpstream(SLOW_SECONDS), "127.0.0.1", slow_port, backlog=4096)
    await told.wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
