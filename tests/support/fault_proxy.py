"""A proxy between the gateway and a real service that injects faults.

    with FaultProxy(service_port) as proxy:
        proxy.fault = Fail(8, of=10)
        …
        proxy.fault = Pass()

A fault applies to every later request, also on kept connections. The service's own pages (/readyz, /openapi.json) are
passed, so that a service can be ready while its calls fail.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from dataclasses import dataclass
from typing import assert_never

from tests.support.loopback_server import LoopbackServer

_PAGES = (b"/readyz", b"/openapi.json", b"/livez")
_PIECE = b"x" * 65536


@dataclass(frozen=True)
class Pass:
    """Pass everything, both ways."""


@dataclass(frozen=True)
class Delay:
    """Pass the request at once, and the answer after a delay in seconds."""

    seconds: float


@dataclass(frozen=True)
class Fail:
    """Answer `failing` of every `of` requests with 503, like a service without its database; pass the rest.

    They are spread evenly: with 3 of 10 no two in a row, with 8 of 10 at most four in a row.
    """

    failing: int
    of: int

    def hits(self, number: int) -> bool:
        """Whether the request of this number (from 0) fails."""
        return number * self.failing % self.of < self.failing


@dataclass(frozen=True)
class Reset:
    """Read the request and reset the connection."""


@dataclass(frozen=True)
class Blame:
    """Answer 503 with a code that blames a dependency of the service."""

    code: str


@dataclass(frozen=True)
class Garbage:
    """Answer with bytes that are not HTTP."""


@dataclass(frozen=True)
class Huge:
    """Answer 200 with a body of this many bytes, as fast as they are read."""

    size: int


Fault = Pass | Delay | Fail | Reset | Blame | Garbage | Huge


class FaultProxy(LoopbackServer):
    """`to` is the service's port."""

    def __init__(self, to: int) -> None:
        super().__init__()
        self._to = to
        self._fault: Fault = Pass()
        self._asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def fault(self) -> Fault:
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._fault, self._asked = fault, 0

    @property
    def asked(self) -> int:
        """Requests that arrived under the present fault, except for the service's own pages."""
        return self._asked

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        service: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                request = head + await reader.readexactly(_length(head))
                fault = self._take(head)
                if isinstance(fault, Pass | Delay):
                    if service is None:
                        service = await asyncio.open_connection("127.0.0.1", self._to)
                    answer = await _ask(service, request)
                    if isinstance(fault, Delay):
                        await asyncio.sleep(fault.seconds)
                    writer.write(answer)
                elif not await _misbehave(fault, writer):
                    return
                await writer.drain()
        finally:
            if service is not None:
                service[1].transport.abort()

    def _take(self, head: bytes) -> Fault:
        """The fault for a request with this head."""
        if head.split(b" ", 2)[1].partition(b"?")[0] in _PAGES:
            return Pass()
        fault, number = self._fault, self._asked
        self._asked += 1
        if isinstance(fault, Fail) and not fault.hits(number):
            return Pass()
        return fault


async def _misbehave(fault: Fail | Reset | Blame | Garbage | Huge, writer: asyncio.StreamWriter) -> bool:
    """Apply the fault; return False if it ends the connection."""
    match fault:
        case Fail():
            writer.write(_refusal("database_unavailable"))
        case Blame(code):
            writer.write(_refusal(code))
        case Reset():
            # With a linger time of 0, closing sends RST at once.
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        case Garbage():
            writer.write(b"\x00\xff\x17 this is no HTTP at all \r\n\r\n" * 8)
            await writer.drain()
            return False
        case Huge(size):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size // len(_PIECE)):
                writer.write(_PIECE)
                await writer.drain()
            writer.write(_PIECE[: size % len(_PIECE)])
        case _:
            assert_never(fault)
    return True


def _refusal(code: str) -> bytes:
    body = json.dumps({"success": False, "error": {"code": code, "message": "said by the fault proxy"}}).encode()
    return (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body


async def _ask(service: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes) -> bytes:
    """Send a request and return the whole answer; the services always send a Content-Length."""
    reader, writer = service
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    bodiless = request.startswith(b"HEAD ") or head[9:12] in (b"204", b"304")
    return head + (b"" if bodiless else await reader.readexactly(_length(head)))


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0
