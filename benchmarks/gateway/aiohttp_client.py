"""The gateway's client to its services on aiohttp's: what api_gateway/upstream.py would be without a client of its own.

For the comparison in docs/decisions/0011; nothing but the benchmark uses it. Everything that can be told to
aiohttp's client is told: no cookies, no redirects, no decoding, no environment, no fields and no encoding of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
from yarl import URL

from api_gateway.upstream import (
    HIGH_WATER,
    IDLE_SECONDS,
    MAX_FIELD_BYTES,
    BrokenAnswer,
    ConnectFailed,
    ConnectionLost,
    Origin,
    UpstreamError,
    _connect_fault,
)


class AiohttpAnswer:
    """The same interface as `api_gateway.upstream.UpstreamAnswer`."""

    def __init__(self, response: aiohttp.ClientResponse, until: float | None) -> None:
        self.status = response.status
        self.fields = [(name.lower(), value) for name, value in response.raw_headers]
        self._response = response
        self._until = until

    def take(self, limit: int) -> bytes | None:
        """It never gives a body without being waited for."""
        return None

    async def read(self, limit: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        async for piece in self.pieces():
            size += len(piece)
            if size > limit:
                raise BrokenAnswer(f"more than {limit} bytes", "http_response_body_size")
            pieces.append(piece)
        return b"".join(pieces)

    def expire_at(self, when: float | None) -> None:
        self._until = when

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            while True:
                async with asyncio.timeout_at(self._until):
                    piece = await self._response.content.readany()
                if not piece:
                    return
                yield piece
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise _fault(error) from error

    def close(self) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class AiohttpUpstream:
    """The same interface as `api_gateway.upstream.Upstream`."""

    def __init__(self, name: str, url: str, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self.name = name
        self.origin = Origin.parse(url)
        self.loop = asyncio.get_running_loop()
        self._base = self.origin.text + self.origin.prefix
        self._host = ("host", self.origin.authority.decode("ascii"))
        self._session = self._make(aiohttp.TCPConnector(limit=0, keepalive_timeout=idle_seconds))
        self._fresh = self._make(aiohttp.TCPConnector(limit=0, force_close=True))

    @staticmethod
    def _make(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            timeout=aiohttp.ClientTimeout(total=None),
            max_field_size=MAX_FIELD_BYTES,
            read_bufsize=HIGH_WATER,
        )

    async def exchange(
        self,
        method: str,
        target: bytes,
        fields: bytes,
        body: bytes | None,
        *,
        connect: float,
        until: float | None = None,
        fresh: bool = False,
    ) -> AiohttpAnswer:
        lines = fields.decode("latin-1").split("\r\n")[:-1]
        pairs = [self._host, *((name, value[1:]) for name, _, value in (line.partition(":") for line in lines))]
        if body is not None:
            pairs.append(("content-length", str(len(body))))
        try:
            async with asyncio.timeout_at(until):
                response = await (self._fresh if fresh else self._session).request(
                    method,
                    URL((self._base + target).decode("ascii"), encoded=True),
                    headers=pairs,
                    data=body or None,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect),
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ServerTimeoutError):
                raise
            raise _fault(error) from error
        return AiohttpAnswer(response, until)

    def close(self) -> None:
        for session in (self._session, self._fresh):
            asyncio.ensure_future(session.close())  # noqa: RUF006  # nobody waits for it at the end


def _fault(error: Exception) -> UpstreamError:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return ConnectFailed(str(error), "connection_timeout")
    if isinstance(error, aiohttp.ClientConnectorError):
        return ConnectFailed(str(error), _connect_fault(error.os_error))
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
        # It asks again by itself where it may, and does not say whether the connection had served.
        return ConnectionLost(reused=False)
    if isinstance(error, aiohttp.ClientPayloadError):
        return BrokenAnswer(repr(error), "http_response_incomplete")
    return BrokenAnswer(repr(error))
