"""A small load generator for machines without wrk: `python -m benchmarks.generator URL CONNECTIONS SECONDS PATIENCE`.

A file as the last argument holds the requests, as wrk_report.lua reads them. Prints the same line as wrk_report.lua.
An answer with a status of 400 or more, a lost connection and one that cannot be made are errors; a request still
waiting after PATIENCE seconds is one too.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop


class AnswerCounts:
    def __init__(self) -> None:
        self.ends_at = 0.0
        self.seconds: list[float] = []
        self.bad = 0
        self.errors = 0


class KeptClient(asyncio.Protocol):
    """One connection with one request at a time."""

    def __init__(self, next_message: Callable[[], bytes], counts: AnswerCounts) -> None:
        self._next_message = next_message
        self._counts = counts
        self._parser = httptools.HttpResponseParser(self)
        self.asked_at: float | None = None
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self.asked_at is not None and time.perf_counter() < self._counts.ends_at:
            self._counts.errors += 1

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        if self.asked_at is not None and now < self._counts.ends_at:
            self._counts.seconds.append(now - self.asked_at)
            if self._parser.get_status_code() >= 400:
                self._counts.bad += 1
        self.asked_at = None
        if now < self._counts.ends_at:
            # A parser serves one message after another only while the connection is kept.
            self._parser = httptools.HttpResponseParser(self)
            self._ask()

    def _ask(self) -> None:
        self.asked_at = time.perf_counter()
        self.transport.write(self._next_message())


def messages(host: str, asks: str) -> Iterator[bytes]:
    """The requests of these lines, again and again; `#n#` counts up from 1."""
    number = 0
    for line in cycle(asks.splitlines()):
        method, path, body, token = line.split("\t")
        if "#n#" in body:
            number += 1
        sent = body.replace("#n#", str(number)).encode()
        about = f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n" if sent else ""
        about += f"Authorization: Bearer {token}\r\n" if token else ""
        yield f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{about}\r\n".encode() + sent


async def generate(
    url: str, connections: int, seconds: float, patience: float, asks: str | None = None
) -> dict[str, float]:
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    message = messages(f"{host}:{port}", f"GET\t{parts.path}\t\t" if asks is None else asks).__next__
    loop, counts = asyncio.get_running_loop(), AnswerCounts()
    began = time.perf_counter()
    counts.ends_at = began + seconds
    clients: list[KeptClient] = []
    for _ in range(connections):
        try:
            _, client = await loop.create_connection(lambda: KeptClient(message, counts), host, port)
        except OSError:
            counts.errors += 1
        else:
            clients.append(client)
    while time.perf_counter() < counts.ends_at:
        await asyncio.sleep(min(0.5, max(counts.ends_at - time.perf_counter(), 0)))
        for at, client in enumerate(clients):
            if client.lost and time.perf_counter() < counts.ends_at:
                try:
                    _, clients[at] = await loop.create_connection(lambda: KeptClient(message, counts), host, port)
                except OSError:
                    counts.errors += 1
    now = time.perf_counter()
    counts.errors += counts.bad + sum(1 for c in clients if c.asked_at is not None and now - c.asked_at > patience)
    for client in clients:
        client.transport.abort()
    ordered = sorted(counts.seconds) or [0.0]
    return {
        "answers": len(counts.seconds),
        "bad": counts.bad,
        "microseconds": (now - began) * 1e6,
        "p50": ordered[len(ordered) // 2] * 1e6,
        "p99": ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)] * 1e6,
        "errors": counts.errors,
    }


if __name__ == "__main__":
    address, how_many, how_long, how_patient = sys.argv[1:5]
    wanted = Path(sys.argv[5]).read_text(encoding="utf-8") if sys.argv[5:] else None
    print(json.dumps(uvloop.run(generate(address, int(how_many), float(how_long), float(how_patient), wanted))))
