"""Time limits on the client's side: heads, bodies and idle connections, on new and on kept connections."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from api_gateway.body import ARRIVAL_SECONDS
from api_gateway.connection import HEAD_SECONDS
from tests.support.gateway import GatewayProcess
from tests.support.raw_http import RawAnswer, RawClient, read_answer
from tests.support.upstream import ScriptedUpstream


def drip(connection: socket.socket, piece: bytes, stop: threading.Event) -> threading.Thread:
    """Go on sending a little now and then."""

    def send() -> None:
        try:
            while not stop.wait(0.5):
                connection.sendall(piece)
        except OSError:
            return

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def ends_within(connection: socket.socket, piece: bytes, limit: float) -> RawAnswer:
    """Drip until the gateway answers; the answer must come at the limit, and the end of the connection with it."""
    stop = threading.Event()
    began = time.monotonic()
    dripping = drip(connection, piece, stop)
    try:
        seen = read_answer(connection)
        assert limit - 0.5 < time.monotonic() - began < limit + 4
    finally:
        stop.set()
        dripping.join(5)
    return seen


@dataclass(frozen=True)
class Slow:
    """A client that begins with `first` and then sends one `piece` after the other."""

    name: str
    first: bytes
    piece: bytes
    limit: float
    on_a_kept_connection: bool = False
    #: Sent together with a whole request before it.
    pipelined: bool = False


SLOW = (
    Slow("a head", b"GET /users HTTP/1.1\r\nHost: localhost\r\n", b"X: 1\r\n", HEAD_SECONDS),
    Slow("a second head", b"GET /users HTTP/1.1\r\nHost: localhost\r\n", b"X: 1\r\n", HEAD_SECONDS, True),
    Slow("a pipelined head", b"GET /users HTTP/1.1\r\nHost: localhost\r\n", b"X: 1\r\n", HEAD_SECONDS, False, True),
    Slow("a body", b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n", b"x", ARRIVAL_SECONDS),
    Slow(
        "chunks",
        b"POST /users HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\nx\r\n",
        ARRIVAL_SECONDS,
        True,
    ),
)


def test_whatever_drips_is_a_408_at_its_limit(client: RawClient, users: ScriptedUpstream) -> None:
    def ask(slow: Slow) -> tuple[int, str]:
        with client.connect() as connection:
            connection.settimeout(60)
            if slow.on_a_kept_connection:
                assert client.request("GET", "/orders", connection=connection).status == 200
            connection.sendall(
                (b"GET /orders HTTP/1.1\r\nHost: localhost\r\n\r\n" if slow.pipelined else b"") + slow.first
            )
            if slow.pipelined:
                assert read_answer(connection).status == 200
            seen = ends_within(connection, slow.piece, slow.limit)
            return seen.status, seen.code

    # All at once, because the longest of the limits is half a minute.
    with ThreadPoolExecutor() as pool:
        seen = dict(zip([slow.name for slow in SLOW], pool.map(ask, SLOW), strict=True))
    assert seen == {slow.name: (408, "request_timeout") for slow in SLOW}
    assert users.requests() == []


def test_a_connection_that_never_asks_is_closed_without_a_word(client: RawClient) -> None:
    with client.connect() as connection:
        connection.settimeout(60)
        began = time.monotonic()
        assert connection.recv(1) == b""
        assert HEAD_SECONDS - 0.5 < time.monotonic() - began < HEAD_SECONDS + 4


def test_an_idle_connection_is_closed(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "log", GUNICORN_CMD_ARGS="--keep-alive 1")
    try:
        with gateway.client.connect() as connection:
            assert gateway.client.request("GET", "/users", connection=connection).status == 200
            began = time.monotonic()
            assert connection.recv(1) == b""
            assert 0.8 < time.monotonic() - began < 5
    finally:
        gateway.stop()
