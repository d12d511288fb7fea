"""Load at a fixed rate, whatever the answers do: `python -m benchmarks.open_load URL RATE SECONDS PATIENCE`.

Each request has its time in a plan made beforehand, and its latency counts from there, so that a server which holds
everything up for a second is charged for every request of that second (no coordinated omission). A request goes out
on a free kept connection, or on a new one. Prints one JSON line: how many answers of which status, requests without
an answer after PATIENCE seconds or with a lost connection (`lost`; they count with PATIENCE in the quantiles), and
p50, p99 and the worst in milliseconds. `late` tells how late the generator itself was at most.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter, deque
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import uvloop


class Connection(asyncio.Protocol):
    """A kept connection with one request at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[int] | None = None
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError())

    def on_message_complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(self._parser.get_status_code())
        self.usable = self.usable and self._parser.should_keep_alive()
        self._parser = httptools.HttpResponseParser(self)

    async def ask(self, message: bytes) -> int:
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(message)
        return await self._answer


class Load:
    def __init__(self, url: str, patience: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._message = f"GET {parts.path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n\r\n".encode()
        self._patience = patience
        self._free: deque[Connection] = deque()
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.lost = 0

    async def one(self, due: float) -> None:
        """Send the request that was due at this time of perf_counter, and note its latency from there."""
        loop = asyncio.get_running_loop()
        connection: Connection | None = None
        try:
            async with asyncio.timeout(due + self._patience - time.perf_counter()):
                while self._free and connection is None:
                    kept = self._free.pop()
                    connection = kept if kept.usable else None
                if connection is None:
                    _, connection = await loop.create_connection(Connection, self._host, self._port)
                self.statuses[await connection.ask(self._message)] += 1
        except (OSError, TimeoutError):
            self.lost += 1
            self.seconds.append(self._patience)
            if connection is not None:
                connection.transport.abort()
            return
        self.seconds.append(time.perf_counter() - due)
        if connection.usable:
            self._free.append(connection)
        else:
            connection.transport.abort()

    def close(self) -> None:
        """End the kept connections."""
        for connection in self._free:
            connection.transport.abort()


async def run(url: str, rate: float, seconds: float, patience: float) -> dict[str, Any]:
    load = Load(url, patience)
    # Not the event loop's clock, which uvloop moves in whole milliseconds.
    began, late = time.perf_counter(), 0.0
    under_way: set[asyncio.Task[None]] = set()
    for number in range(int(rate * seconds)):
        due = began + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        late = max(late, time.perf_counter() - due)
        task = asyncio.create_task(load.one(due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
    load.close()
    ordered = sorted(load.seconds)
    return {
        "statuses": {str(status): count for status, count in sorted(load.statuses.items())},
        "lost": load.lost,
        "p50": ordered[len(ordered) // 2] * 1000,
        "p99": ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)] * 1000,
        "worst": ordered[-1] * 1000,
        "late": late * 1000,
    }


if __name__ == "__main__":
    address, how_many, how_long, how_patient = sys.argv[1:5]
    print(json.dumps(uvloop.run(run(address, float(how_many), float(how_long), float(how_patient)))))
