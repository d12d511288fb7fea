"""Time limits on the client's side: heads, bodies and idle connections, on new and on kept connections.

The gateway of this file has shorter ones.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from servicekit.http_server import connection, request
from tests.support.gateway import CHECKOUT, GatewayProcess
from tests.support.raw_http import RawAnswer, RawClient, read_answer
from tests.support.upstream import ScriptedUpstream

HEAD_SECONDS, BODY_SECONDS = 2.0, 4.0
#: Nothing here ends by itself; so long is waited for the gateway to end it.
PATIENCE = 60


@pytest.fixture(scope="module")
def _process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    conf = folder / "gunicorn.conf.py"
    conf.write_text(
        (CHECKOUT / "api_gateway" / "gunicorn.conf.py").read_text(encoding="utf-8")
        + f"import {request.__name__} as _request, {connection.__name__} as _connection\n"
        + f"_request.ARRIVAL_SECONDS, _connection.HEAD_SECONDS = {BODY_SECONDS}, {HEAD_SECONDS}\n",
        encoding="utf-8",
    )
    process = GatewayProcess(folder / "log", conf=conf, GUNICORN_CMD_ARGS="--keep-alive 3")
    yield process
    process.stop()


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


def end_of(connection: socket.socket, piece: bytes) -> RawAnswer:
    """Drip until the gateway answers and ends the connection; without a limit that never happens."""
    stop = threading.Event()
    dripping = drip(connection, piece, stop)
    try:
        return read_answer(connection)
    finally:
        stop.set()
        dripping.join(5)


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
    Slow("a head and then nothing", b"GET /users HTTP/1.1\r\nHost: localhost\r\n", b"", HEAD_SECONDS),
    Slow("a second head", b"GET /users HTTP/1.1\r\nHost: localhost\r\n", b"X: 1\r\n", HEAD_SECONDS, True),
    Slow("a pipelined head", b"GET /users HTTP/1.1\r\nHost: localhost\r\n", b"X: 1\r\n", HEAD_SECONDS, False, True),
    Slow("a body", b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n", b"x", BODY_SECONDS),
    Slow(
        "chunks",
        b"POST /users HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\nx\r\n",
        BODY_SECONDS,
        True,
    ),
)


def test_whatever_drips_is_a_408_at_its_limit(client: RawClient, users: ScriptedUpstream) -> None:
    def ask(slow: Slow) -> tuple[int, str]:
        with client.connect() as connection:
            connection.settimeout(PATIENCE)
            if slow.on_a_kept_connection:
                assert client.request("GET", "/orders", connection=connection).status == 200
            began = time.monotonic()
            connection.sendall(
                (b"GET /orders HTTP/1.1\r\nHost: localhost\r\n\r\n" if slow.pipelined else b"") + slow.first
            )
            if slow.pipelined:
                assert read_answer(connection).status == 200
            seen = end_of(connection, slow.piece)
            assert time.monotonic() - began > slow.limit - 0.5
            return seen.status, seen.code

    with ThreadPoolExecutor() as pool:
        seen = dict(zip([slow.name for slow in SLOW], pool.map(ask, SLOW), strict=True))
    assert seen == {slow.name: (408, "request_timeout") for slow in SLOW}
    assert users.requests() == []


def test_a_connection_that_never_asks_is_closed_without_a_word(client: RawClient) -> None:
    with client.connect() as connection:
        connection.settimeout(PATIENCE)
        assert connection.recv(1) == b""


def test_an_idle_connection_is_closed(client: RawClient) -> None:
    with client.connect() as connection:
        assert client.request("GET", "/users", connection=connection).status == 200
        connection.settimeout(PATIENCE)
        assert connection.recv(1) == b""
