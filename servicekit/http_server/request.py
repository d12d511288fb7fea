"""A client's request, and the connection that takes its answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

from servicekit.wire.browsers import Verdict
from servicekit.wire.errors import BadRequest, RequestTimeout, TooLarge
from servicekit.wire.memory import Account

#: (name, value) pairs, names in lower case, as ASGI has them.
Fields = list[tuple[bytes, bytes]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

#: How long a body may take to arrive, in seconds.
ARRIVAL_SECONDS = 30.0

#: Fields of one value each, in lower case: from two of them one reader would take the first, another both.
_OF_ONE_VALUE = (b"authorization", b"content-type", b"idempotency-key", b"x-act-as")

_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)
_HOST = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


def field_lines(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Fields as sent, each line with its end."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])


def is_valid_host(value: bytes) -> bool:
    """Whether a Host field is one host with an optional port (RFC 9112 section 3.2)."""
    return _HOST.fullmatch(value) is not None


def origin_form(target: bytes, fields: Fields, version: tuple[int, int]) -> tuple[bytes, Fields]:
    """Reduce an absolute target to its path and query; its host replaces Host (RFC 9112 section 3.2.2)."""
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        return target, fields
    host = (b"host", found[1].lower())
    replaced = [host if name == b"host" else (name, value) for name, value in fields]
    if version == (1, 0) and host not in replaced:
        replaced.append(host)
    return found[2] if found[2].startswith(b"/") else b"/" + found[2], replaced


class RequestFields:
    """The fields of a request, with common look-ups. Immutable: equal heads share one instance."""

    __slots__ = (
        "_before",
        "_common",
        "_pairs",
        "_shared",
        "environ",
        "first",
        "has_valid_host",
        "hosts",
        "own",
        "repeated",
        "verdict",
    )

    def __init__(self, pairs: Fields) -> None:
        self._pairs: Fields | None = pairs
        #: The field lines before the Authorization, until somebody asks for the pairs.
        self._before: bytes | None = b""
        self.hosts = [value for name, value in pairs if name == b"host"]
        self.has_valid_host = not self.hosts or is_valid_host(self.hosts[0])
        #: The first value of each field.
        self.first = dict(reversed(pairs))
        names = [] if len(self.first) == len(pairs) else [name for name, _ in pairs]
        #: A field that may come once and comes again.
        self.repeated = next((name for name in _OF_ONE_VALUE if names.count(name) > 1), None)
        #: The verdict of BrowserRules, once known; it does not depend on the sender.
        self.verdict: Verdict | None = None
        # None instead of itself, or it would wait for the garbage collector.
        self._common: RequestFields | None = None
        self._shared: RequestFields | None = None
        #: Of this request alone; none has the name of a shared one.
        self.own: Fields = []
        #: What the shared ones are for WSGI, once known.
        self.environ: dict[str, str] | None = None

    @property
    def common(self) -> RequestFields:
        """Those that requests by other credentials share; itself, unless made of others with one Authorization."""
        return self._common or self

    @property
    def shared(self) -> RequestFields:
        """Those that other requests share."""
        return self._shared or self

    @property
    def pairs(self) -> Fields:
        if self._pairs is None:
            pairs = self.shared.pairs
            at = len(pairs) if self._before is None else self._before.count(b"\r\n")
            self._pairs = [*pairs[:at], *self.own, *pairs[at:]]
        return self._pairs

    def with_authorization(self, value: bytes, before: bytes) -> RequestFields:
        """These fields, which have no Authorization, and one behind these field lines. Nobody else shares them."""
        whole = self._with([(b"authorization", value)], before)
        whole.verdict, whole._common = self.verdict, self
        return whole

    def with_own(self, own: Fields) -> RequestFields:
        """These fields and more at the end: each once, none that is here already, and no Host."""
        return self._with(own, None)

    def _with(self, own: Fields, before: bytes | None) -> RequestFields:
        whole: RequestFields = object.__new__(RequestFields)
        whole._pairs, whole._before = None, before
        whole._shared, whole.own = self, own
        whole.first = {**self.first, **dict(own)}
        whole.hosts, whole.has_valid_host = self.hosts, self.has_valid_host
        whole.repeated, whole.verdict, whole._common = self.repeated, None, None
        return whole

    def get(self, name: bytes) -> str | None:
        """The first value of a field, as text; None if there is none. `name` is in lower case."""
        value = self.first.get(name)
        return None if value is None else value.decode("latin-1")


class ClientLeft(Exception):
    """The client closed its connection before its request was complete."""


async def _nothing() -> MutableMapping[str, Any]:
    return {"type": "http.request"}


class RequestBody:
    """The body of a request: read whole within a limit, at most once."""

    __slots__ = ("_complete", "_receive", "_whole", "length", "present")

    def __init__(self, fields: RequestFields, receive: Receive = _nothing, whole: bytes = b"") -> None:
        """`whole` is a body that is here already; otherwise `receive` gives it."""
        length = fields.first.get(b"content-length")
        self.length = None if length is None else int(length)
        self.present = length is not None or b"transfer-encoding" in fields.first
        self._receive = receive
        self._whole = whole
        self._complete = not self.present

    async def read(self, limit: int, account: Account) -> bytes:
        """The whole body, counted in `account`. Raises TooLarge above `limit` bytes, whatever the framing; Overloaded;
        RequestTimeout; ClientLeft."""
        if not self.present:
            return b""
        if self.length is not None and self.length > limit:
            raise TooLarge(f"The body is larger than {limit} bytes.")
        if self.length is not None:
            account.take(self.length)
        if self._receive is _nothing:
            whole, self._whole = self._whole, b""
            return whole
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(ARRIVAL_SECONDS) as time_left:
                while not self._complete:
                    piece = await self._piece(time_left)
                    size += len(piece)
                    if size > limit:
                        raise TooLarge(f"The body is larger than {limit} bytes.")
                    if self.length is None:
                        account.take(len(piece))
                    pieces.append(piece)
        except TimeoutError as error:
            raise RequestTimeout from error
        return b"".join(pieces)

    async def _piece(self, time_left: asyncio.Timeout) -> bytes:
        message = await self._receive()
        if time_left.expired():
            # gunicorn receives by asyncio.wait_for, which up to Python 3.11 drops a cancellation that meets data.
            raise TimeoutError
        if message["type"] == "http.disconnect":
            raise ClientLeft
        self._complete = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece


#: The body of all requests without one.
NO_BODY = RequestBody(RequestFields([]))


class Client(Protocol):
    """The connection a request came in on. It takes one answer, whole or in pieces, and adds what belongs to the
    connection: the framing of pieces, Date, Connection. No method fails because the client left."""

    #: The peer's, as `read_address` has it.
    address: str
    scheme: str
    #: Application data to keep for the connection's next request; None at first.
    memo: Any
    #: Whether an answer to the current request has begun.
    has_answer: bool
    #: The client sends nothing more, but may wait for its answer.
    half_closed: bool

    def send(self, status: int, fields: Fields, body: bytes) -> None:
        """Send a whole answer; `fields` hold its Content-Length, if any."""

    def start_stream(self, status: int, fields: Fields, *, endless: bool = False) -> None:
        """Begin an answer in pieces, in chunks unless `fields` hold its Content-Length. An `endless` one ends when the
        client closes its side: whether it left or waits for more cannot be told."""

    def send_piece(self, piece: bytes | memoryview) -> None:
        """Send a piece. A view must not change while there is anything `unsent`."""

    def end_stream(self) -> None:
        """End a stream properly; one that is not ended is cut off with its connection."""

    def cut_off(self) -> None:
        """Drop the connection and what is unsent."""

    @property
    def unsent(self) -> int:
        """Bytes that the client has not accepted."""

    @property
    def is_behind(self) -> bool:
        """Whether much of what was sent has not been accepted: wait for `drain` before sending more."""

    async def drain(self) -> None:
        """Wait until most was accepted; a client that accepts nothing for a minute is cut off."""


@dataclass(slots=True)
class Request:
    """A request as received; nothing has been validated except that it is HTTP."""

    method: str
    #: The request target, byte for byte.
    target: str
    http_version: str
    fields: RequestFields
    body: RequestBody
    client: Client

    def check_fields(self) -> None:
        """Raise `BadRequest` unless there is exactly one valid Host (RFC 9112 section 3.2; optional in HTTP/1.0), or
        where a field of one value comes twice."""
        hosts = self.fields.hosts
        if len(hosts) > 1 or (not hosts and self.http_version != "1.0"):
            raise BadRequest("A request names exactly one Host.")
        if not self.fields.has_valid_host:
            raise BadRequest("The Host field is not valid.")
        if self.fields.repeated is not None:
            raise BadRequest.field(self.fields.repeated.decode("ascii").title(), "may be sent only once")
