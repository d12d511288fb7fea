"""A service that goes wrong when told: `python -m benchmarks.gateway_faults.upstream PORT`.

`GET /mode/NAME` sets how every other request is answered: well, slow, failing or resetting. Freezing it is left to
SIGSTOP.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import struct
import sys
from typing import cast

import uvloop

#: Seconds that a slow answer takes: less than the gateways' limit of 5.
SLOW_SECONDS = 3.0
#: Of so many requests to a failing service, all but the last two get a 503.
_CYCLE = 10


def _answer(status: str, body: object) -> bytes:
    content = json.dumps(body).encode()
    fields = b"Server: upstream\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content)
    return b"HTTP/1.1 " + status.encode() + b"\r\n" + fields + content


_GOOD = _answer("200 OK", {"success": True, "data": {"id": "0193a5b0-7c1e-7a52-8d52-5f0f4d6c1b2a"}})
_BAD = _answer(
    "503 Service Unavailable", {"success": False, "error": {"code": "database_unavailable", "message": "as told"}}
)


class UpstreamMode:
    mode = "well"
    asked = 0


class FaultyUpstream(asyncio.Protocol):
    def __init__(self, state: UpstreamMode) -> None:
        self._state = state
        self._buffer = b""
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *heads, self._buffer = (self._buffer + data).split(b"\r\n\r\n")
        for head in heads:
            target = head.split(b" ", 2)[1].decode("latin-1")
            if target.startswith("/mode/"):
                self._state.mode, self._state.asked = target.removeprefix("/mode/"), 0
                self._send(_GOOD)
            else:
                self._play()

    def _play(self) -> None:
        state = self._state
        number, state.asked = state.asked, state.asked + 1
        if state.mode == "slow":
            asyncio.get_running_loop().call_later(SLOW_SECONDS, self._send, _GOOD)
        elif state.mode == "failing" and number % _CYCLE < _CYCLE - 2:
            self._send(_BAD)
        elif state.mode == "resetting":
            # Without lingering, closing sends RST at once.
            sock: socket.socket = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._send(_GOOD)

    def _send(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


async def main(port: int) -> None:
    loop, state, told = asyncio.get_running_loop(), UpstreamMode(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    await loop.create_server(lambda: FaultyUpstream(state), "127.0.0.1", port, backlog=4096)
    await told.wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
