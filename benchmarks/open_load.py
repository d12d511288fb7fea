"""Load at a fixed rate, whatever the answers do: `python -m benchmarks.open_load URL RATE SECONDS PATIENCE [ASKS]`.

Each request has its time in a plan made beforehand, and its latency counts from there, so that a server which holds
everything up for a second is charged for every request of that second (no coordinated omission). A request goes out
on a free kept connection, or on a new one. The plan ends after SECONDS, or with SIGTERM; then what is under way is
waited for. A request without an answer after PATIENCE seconds is lost. A file of ASKS is as generator.py reads it.

Prints one JSON object a line: `{"began": T}`; `{"refused": T}` when the first answer of 500 or more came at once; and
in the end `{"requests": [[due, late, seconds, status], …]}`: when each was due, how late the load itself was with it,
and after how many seconds it was answered with which status (0: lost, and the seconds are PATIENCE). Times are those
of time.perf_counter, which is one clock for all processes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools
import uvloop

from benchmarks.generator import messages
from servicekit.process.lifecycle import grow_file_table

LOST = 0
#: A refusal that comes sooner than this, in seconds, is the gateway's own: it did not ask the service.
AT_ONCE_SECONDS = 0.5


class TimedRequest(NamedTuple):
    """One request of the plan; all but `status` in seconds."""

    due: float
    late: float
    seconds: float
    status: int


class Summary(NamedTuple):
    """What many requests come to; times in milliseconds."""

    answers: Counter[int]
    p50: float
    p99: float
    worst: float
    #: How late the load itself was at most, in milliseconds.
    late: float


def summary(requests: Sequence[TimedRequest]) -> Summary:
    """Sum up at least one request."""
    ordered = sorted(request.seconds for request in requests)
    return Summary(
        Counter(request.status for request in requests),
        p50=ordered[len(ordered) // 2] * 1000,
        p99=ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)] * 1000,
        worst=ordered[-1] * 1000,
        late=max(request.late for request in requests) * 1000,
    )


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


class OpenLoad:
    """`tell` hears of events by name and time; see the module."""

    def __init__(
        self,
        url: str,
        patience: float,
        tell: Callable[[str, float], None] = lambda _name, _at: None,
        asks: str | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        wanted = f"GET\t{parts.path}\t\t" if asks is None else asks
        self._next_message = messages(f"{self._host}:{self._port}", wanted).__next__
        self._patience = patience
        self._tell = tell
        self._free: deque[Connection] = deque()
        self._refused = False
        self._under_way: set[asyncio.Task[None]] = set()
        self._over = threading.Event()
        self.requests: list[TimedRequest] = []

    def end(self) -> None:
        """Let the plan end now."""
        self._over.set()

    async def run(self, rate: float, seconds: float) -> list[TimedRequest]:
        """Carry out a plan; gives its requests in the order in which they ended."""
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        self._tell("began", began)

        # On a thread, because the timers of an event loop are a millisecond late, as much as an answer takes.
        def pace() -> None:
            for number in range(int(rate * seconds)):
                due = began + number / rate
                if self._over.wait(max(due - time.perf_counter(), 0)):
                    return
                loop.call_soon_threadsafe(self._begin, due)

        try:
            await asyncio.to_thread(pace)
            while self._under_way:
                await asyncio.gather(*self._under_way)
        finally:
            self.end()
        for connection in self._free:
            connection.transport.abort()
        return self.requests

    def _begin(self, due: float) -> None:
        task = asyncio.create_task(self._one(due))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _one(self, due: float) -> None:
        """Send the request that was due then, and note what came of it."""
        late = time.perf_counter() - due
        loop = asyncio.get_running_loop()
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self._patience - late):
                while self._free and connection is None:
                    kept = self._free.pop()
                    connection = kept if kept.usable else None
                if connection is None:
                    _, connection = await loop.create_connection(Connection, self._host, self._port)
                status = await connection.ask(self._next_message())
        except (OSError, TimeoutError):
            self.requests.append(TimedRequest(due, late, self._patience, LOST))
            if connection is not None:
                connection.transport.abort()
            return
        now = time.perf_counter()
        self.requests.append(TimedRequest(due, late, now - due, status))
        if status >= 500 and now - due < AT_ONCE_SECONDS and not self._refused:
            self._refused = True
            self._tell("refused", now)
        if connection.usable:
            self._free.append(connection)
        else:
            connection.transport.abort()


async def main(url: str, rate: float, seconds: float, patience: float, asks: str | None) -> None:
    load = OpenLoad(url, patience, lambda name, at: print(json.dumps({name: at}), flush=True), asks)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.end)
    print(json.dumps({"requests": await load.run(rate, seconds)}), flush=True)


if __name__ == "__main__":
    address, how_many, how_long, how_patient = sys.argv[1:5]
    wanted = Path(sys.argv[5]).read_text(encoding="utf-8") if sys.argv[5:] else None
    # What would hold this process up would be charged to the server.
    grow_file_table()
    gc.freeze()
    uvloop.run(main(address, float(how_many), float(how_long), float(how_patient), wanted))
