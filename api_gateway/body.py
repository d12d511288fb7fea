"""The body of a client's request: read whole within a limit, or thrown away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from api_gateway.errors import NotSupported, RequestTimeout
from api_gateway.headers import RequestFields
from servicekit.wire.errors import TooLarge
from servicekit.wire.memory import Account

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

#: A body must have arrived within this time, in seconds.
ARRIVAL_SECONDS = 30.0
_DRAIN_BYTES = 256 * 1024 * 1024
_DRAIN_SECONDS = 10.0


async def _nothing() -> MutableMapping[str, Any]:
    return {"type": "http.request"}


class ClientLeft(Exception):
    """The client closed its connection before its request was complete."""


class RequestBody:
    """Read at most once."""

    __slots__ = ("_coding", "_complete", "_receive", "length", "present")

    def __init__(self, fields: RequestFields, receive: Receive) -> None:
        length = fields.first.get(b"content-length")
        self.length = None if length is None else int(length)
        self._coding = fields.first.get(b"transfer-encoding")
        self.present = length is not None or self._coding is not None
        self._receive = receive
        self._complete = not self.present

    async def read(self, limit: int, account: Account) -> bytes:
        """All of it, counted in `account`. TooLarge above `limit` bytes, whatever the framing; NotSupported for a
        coding beside the chunks, which would be lost; Overloaded; RequestTimeout; ClientLeft."""
        if not self.present:
            return b""
        if self._coding is not None and self._coding.strip().lower() != b"chunked":
            raise NotSupported
        if self.length is not None and self.length > limit:
            raise TooLarge(f"The body is larger than {limit} bytes.")
        if self.length is not None:
            account.take(self.length)
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(ARRIVAL_SECONDS):
                while not self._complete:
                    piece = await self._piece()
                    size += len(piece)
                    if size > limit:
                        raise TooLarge(f"The body is larger than {limit} bytes.")
                    if self.length is None:
                        account.take(len(piece))
                    pieces.append(piece)
        except TimeoutError as error:
            raise RequestTimeout from error
        return b"".join(pieces)

    async def drain(self) -> None:
        """Read on and throw away what was not read.

        A client that is still sending would otherwise meet a reset of the connection, not the answer.
        """
        if self._complete:
            return
        size = 0
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self._complete and size < _DRAIN_BYTES:
                    size += len(await self._piece())
        except (TimeoutError, ClientLeft):
            return

    async def _piece(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        self._complete = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece


#: The body of all requests that have none.
NO_BODY = RequestBody(RequestFields([]), _nothing)
