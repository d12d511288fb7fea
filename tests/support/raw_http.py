"""A client that sends exactly the bytes it is given and returns exactly what comes back."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import count
from typing import Any


@dataclass(frozen=True)
class RawAnswer:
    """One answer; `seconds` is the time from sending to its last byte."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes
    seconds: float

    def values(self, name: str) -> list[str]:
        """Every value of a field, in order."""
        return [value for key, value in self.fields if key == name.lower()]

    def value(self, name: str) -> str | None:
        values = self.values(name)
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error in the envelope."""
        assert self.value("content-type") == "application/json", self
        body = self.json
        assert body["success"] is False
        assert set(body) == {"success", "error"}
        assert body["error"]["message"]
        return str(body["error"]["code"])


#: Addresses of clients. A generator could not be asked by several threads at once.
_SOURCES = map(IPv4Address, count(int(IPv4Address("127.16.0.1"))))


class RawClient:
    """A client of one port."""

    def __init__(self, port: int, timeout: float = 15.0, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.timeout = timeout
        self.tls = tls

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        """Connect from an address of the loopback network."""
        connection = socket.create_connection(("127.0.0.1", self.port), self.timeout, (source, 0))
        return connection if self.tls is None else self.tls.wrap_socket(connection, server_hostname="localhost")

    def send(self, data: bytes, *, head: bool = False) -> RawAnswer:
        """Send bytes on a new connection; return the answer."""
        with self.connect() as connection:
            began = time.monotonic()
            connection.sendall(data)
            return read_answer(connection, head=head, began=began)

    def request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        fields: tuple[tuple[str, str], ...] = (),
        connection: socket.socket | None = None,
    ) -> RawAnswer:
        """Send one ordinary request; a given connection is kept open."""
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in fields]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        data = "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
        if connection is None:
            return self.send(data, head=method == "HEAD")
        began = time.monotonic()
        connection.sendall(data)
        return read_answer(connection, head=method == "HEAD", began=began)

    def get(self, target: str, *fields: tuple[str, str]) -> RawAnswer:
        return self.request("GET", target, fields=fields)

    def pipeline(self, requests: Sequence[tuple[str, str]], fields: Mapping[str, str]) -> list[RawAnswer]:
        """The answers to many requests without a body, sent before the first of them is read; as if by several clients,
        because one that shows nothing valid 20 times is answered slowly."""
        answers: list[RawAnswer] = []
        lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "localhost", **fields}.items())
        while len(answers) < len(requests):
            left = requests[len(answers) : len(answers) + 20]
            with self.connect(str(next(_SOURCES))) as connection, connection.makefile("rb") as stream:
                heads = (f"{method} {target} HTTP/1.1\r\n{lines}\r\n" for method, target in left)
                connection.sendall("".join(heads).encode("latin-1"))
                for method, _ in left:
                    answers.append(RawAnswer(*_read(stream, method == "HEAD"), seconds=0.0))
                    if answers[-1].value("connection") == "close":
                        break
        return answers


class KeptClient(RawClient):
    """The same on connections that have served a request before, one that reaches no upstream."""

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        connection = super().connect(source)
        connection.sendall(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(connection).status == 204
        return connection


class WholeWayClient(RawClient):
    """The same with an empty line before each request, which is legal (RFC 9112 section 2.2) but not a plain head, so
    that gunicorn's parser reads it."""

    def send(self, data: bytes, *, head: bool = False) -> RawAnswer:
        return super().send(b"\r\n" + data, head=head)


def read_answer(connection: socket.socket, *, head: bool = False, began: float | None = None) -> RawAnswer:
    """Read one answer. Raises ConnectionError for a truncated body."""
    began = time.monotonic() if began is None else began
    # Closed here, since a raised error keeps this frame, and with it the connection, alive.
    with connection.makefile("rb") as stream:
        status, fields, body = _read(stream, head)
    return RawAnswer(status, fields, body, time.monotonic() - began)


def _read(stream: Any, head: bool) -> tuple[int, list[tuple[str, str]], bytes]:
    while True:
        status = int(_line(stream).split(b" ")[1])
        fields = []
        while line := _line(stream):
            name, _, value = line.partition(b":")
            fields.append((name.decode("latin-1").lower(), value.strip().decode("latin-1")))
        if status >= 200:
            break
    given = dict(fields)
    assert not ("content-length" in given and "transfer-encoding" in given), fields
    body = b""
    if not head and status not in (204, 304):
        if "transfer-encoding" in given:
            body = _chunks(stream)
        elif "content-length" in given:
            body = _exactly(stream, int(given["content-length"]))
        else:
            body = stream.read()
    return status, fields, body


def _line(stream: Any) -> bytes:
    line: bytes = stream.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError(f"cut off in a head: {line!r}")
    return line[:-2]


def _exactly(stream: Any, size: int) -> bytes:
    data: bytes = stream.read(size)
    if len(data) != size:
        raise ConnectionError("cut off in a body")
    return data


def _chunks(stream: Any) -> bytes:
    body = b""
    while True:
        size = int(_line(stream), 16)
        if size == 0:
            assert _line(stream) == b""
            return body
        body += _exactly(stream, size)
        assert _line(stream) == b""
