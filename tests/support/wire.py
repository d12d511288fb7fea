"""A connection to a server that can be cut while the server's last bytes lie unread at the client.

with Wire(server_port) as wire:
    …                            # the client uses wire.port
    wire.cut_after(something)    # every connection over it is reset; new ones are taken
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

from tests.support.loopback_server import LoopbackServer
from tests.support.waiting import eventually


class Wire(LoopbackServer):
    """Passes bytes both ways. `to` is the server's port on loopback."""

    def __init__(self, to: int) -> None:
        super().__init__()
        self._to = to
        self._handed_back = 0

    def cut_after(self, say: Callable[[], object]) -> None:
        """Call `say`, which makes the server send to a client that does not read, then reset every connection.

        Returns once both have arrived.
        """
        before = self._handed_back
        say()
        eventually(lambda: self._handed_back > before, what="the server's word has been handed on")
        asyncio.run_coroutine_threadsafe(self._reset(), self._loop).result(10)

    async def _reset(self) -> None:
        for client in self._clients.values():
            sock: socket.socket = client.get_extra_info("socket")
            # With a linger time of 0, closing sends RST at once.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self._end_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
        asking = asyncio.ensure_future(_carry(reader, to_server))
        try:
            while piece := await from_server.read(65536):
                # Counted first, so that a client with an answer sees it counted.
                self._handed_back += len(piece)
                writer.write(piece)
                await writer.drain()
        finally:
            asking.cancel()
            to_server.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.CancelledError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
