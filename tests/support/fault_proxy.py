"""A proxy between the gateway and a real service that does what a real service cannot be told to do.

    with FaultProxy(service_port) as proxy:
        proxy.fault = Fail(8, of=10)
        …
        proxy.fault = Pass()

A fault holds for every request from then on, those on kept connections too; the service's own pages (/readyz and
/openapi.json) are never touched, so that a service which is ready while its calls fail can be played.
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
    """Hand everything on, both ways."""


@dataclass(frozen=True)
class Delay:
    """Hand the request on, and the answer back so many seconds later."""

    seconds: float


@dataclass(frozen=True)
class Fail:
    """Answer `failing` of every `of` requests with 503 as a service without its database does; pass the others.

    They are spread evenly: with 3 of 10 no two follow each other, with 8 of 10 four at most.
    """

    failing: int
    of: int

    def hits(self, number: int) -> bool:
        """Whether the request of this number (from 0) fails."""
        return number * self.failing % self.of < self.failing


@dataclass(frozen=True)
class Reset:
    """Take the request and reset the connection."""


@dataclass(frozen=True)
class Blame:
    """Answer 503 with a code that says somebody behind the service failed."""

    code: str


@dataclass(frozen=True)
class Garbage:
    """Answer with what is not HTTP."""


@dataclass(frozen=True)
class Huge:
    """Answer 200 with a body of so many bytes, as fast as they are taken."""

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
        """Requests that arrived under the present fault, the service's own pages left out."""
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
        """What happens to a request with this head."""
        if head.split(b" ", 2)[1].partition(b"?")[0] in _PAGES:
            return Pass()
        fault, number = self._fault, self._asked
        self._asked += 1
        if isinstance(fault, Fail) and not fault.hits(number):
            return Pass()
        return fault


async def _misbehave(fault: Fail | Reset | Blame | Garbage | Huge, writer: asyncio.StreamWriter) -> bool:
    """Answer as the fault says; False when the connection ends with it."""
    match fault:
        case Fail():
            writer.write(_refusal("database_unavailable"))
        case Blame(code):
            writer.write(_refusal(code))
        case Reset():
            # Without lingering, closing sends RST at once.
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
    """Send a request and give the whole answer; our services tell every body's length."""
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
