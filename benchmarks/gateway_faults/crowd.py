"""Clients that want nothing, or take for ever to say it: `python -m benchmarks.gateway_faults.crowd PORT NUMBER KIND`.

KIND is idle (connected and silent) or slow (sends a request's head, one byte a second). Whoever is cut off connects
again. Prints a line when all are connected for the first time, and goes on until SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

import uvloop

_HEAD = b"GET /users/0193a5b0-7c1e-7a52-8d52-5f0f4d6c1b2a HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"s" * 10_000
#: Seconds between two bytes of a slow client, and before a refused one tries again.
_PAUSE = 1.0


async def client(port: int, kind: str, connected: asyncio.Event) -> None:
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            connected.set()
            try:
                if kind == "slow":
                    await asyncio.gather(_drip(writer), reader.read())
                else:
                    await reader.read()
            finally:
                writer.transport.abort()
        await asyncio.sleep(_PAUSE)


async def _drip(writer: asyncio.StreamWriter) -> None:
    for at in range(len(_HEAD)):
        if writer.is_closing():
            return
        writer.write(_HEAD[at : at + 1])
        await asyncio.sleep(_PAUSE)


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
