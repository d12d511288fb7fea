"""A client's request, and the connection that takes its reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from api_gateway.body import RequestBody
from api_gateway.headers import Fields, Passed, RequestFields


class Client(Protocol):
    """The connection a request came in on. It takes one reply: whole, or as a stream. It adds what belongs to the
    connection: the framing of a stream, Date, Connection. Nothing fails because the client left."""

    address: str
    scheme: str
    #: What went up of the last request's head, for the next one.
    passed: Passed | None

    def send(self, status: int, fields: Fields, body: bytes) -> None:
        """The whole reply; `fields` hold its Content-Length if it has one."""

    def start_stream(self, status: int, fields: Fields) -> None: ...

    def send_piece(self, piece: bytes) -> None: ...

    def end_stream(self) -> None:
        """A stream that was not ended is cut off with its connection."""

    @property
    def is_behind(self) -> bool:
        """Much of what was sent has not been taken: wait for `taken` before sending more."""

    async def taken(self) -> None: ...


@dataclass(slots=True)
class Request:
    """As it came; nothing of it was judged but that it is HTTP."""

    method: str
    #: The request target, byte for byte.
    target: str
    http_version: str
    fields: RequestFields
    body: RequestBody
    client: Client
