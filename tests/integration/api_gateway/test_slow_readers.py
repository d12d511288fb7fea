"""A client that stops taking what it asked for is cut off, and frees what it held."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from http.client import HTTPResponse

import psutil
import pytest

from tests.support.certificates import Authority
from tests.support.gateway import CHECKOUT, GatewayProcess
from tests.support.raw_http import read_answer
from tests.support.upstream import Pause, answer
from tests.support.waiting import eventually

MIB = 1024 * 1024
#: gunicorn's configuration of the gateway, with patience for a second instead of a minute.
IMPATIENT = f"""
exec(open({str(CHECKOUT / "api_gateway" / "gunicorn.conf.py")!r}).read())
graceful_timeout = 5


def post_fork(server, worker):
    from api_gateway import route_table
    from servicekit.http_server import connection

    connection.LINGER_SECONDS = 1.0
    connection.SILENT_SECONDS = 0.5
    connection.DISCARD_SECONDS = 1.0
    for route in route_table.ROUTES:
        object.__setattr__(route.limits, "idle", 1.0)
"""


@pytest.fixture(scope="module")
def _process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    conf = folder / "impatient.conf.py"
    conf.write_text(IMPATIENT)
    process = GatewayProcess(folder / "log", conf=conf)
    yield process
    process.stop()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def closed(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """The same by TLS."""
    folder = tmp_path_factory.mktemp("tls")
    conf = folder / "impatient.conf.py"
    conf.write_text(IMPATIENT)
    certificate, key = authority.write_pair(folder, "localhost", "127.0.0.1")
    files = {"GATEWAY_TLS_CERT_FILE": str(certificate), "GATEWAY_TLS_KEY_FILE": str(key)}
    process = GatewayProcess(folder / "log", conf=conf, tls=authority.trusting, **files)
    yield process
    process.stop()


def connect(gateway: GatewayProcess) -> socket.socket:
    """A connection that takes little at a time."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(15)
    connection.connect(("127.0.0.1", gateway.port))
    return connection


def connections(worker: psutil.Process, port: int) -> int:
    """How many clients' connections the gateway has."""
    return sum(1 for one in worker.net_connections("tcp") if one.laddr.port == port and one.raddr)


def is_cut_off(connection: socket.socket, size: int) -> bool:
    """Take what is there; it ends before it is complete."""
    seen = 0
    try:
        while data := connection.recv(65536):
            seen += len(data)
    except ConnectionResetError:
        return True
    return seen < size


@pytest.mark.parametrize(
    ("fields", "media_type"),
    [
        pytest.param(b"", "application/json", id="an answer on a kept connection"),
        pytest.param(b"Connection: close\r\n", "application/json", id="a connection's last answer"),
        pytest.param(b"", "text/csv", id="a download"),
        pytest.param(b"", "text/event-stream", id="a stream of events"),
    ],
)
def test_it_is_cut_off(gateway: GatewayProcess, fields: bytes, media_type: str) -> None:
    users = gateway.upstreams["users"]
    size = 24 * MIB
    (pid,) = gateway.pids()
    worker = psutil.Process(pid)
    body = b'{"success": true, "data": "' + b"x" * size + b'"}'
    users.script(answer(200, body, media_type=media_type))
    with connect(gateway) as idle, connect(gateway) as connection:
        idle.sendall(b"GET /orders HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(idle).status == 200
        connection.sendall(b"GET /users HTTP/1.1\r\nHost: localhost\r\n" + fields + b"\r\n")
        users.wait_for(1)
        eventually(lambda: connections(worker, gateway.port) == 1, timeout=20, what="the slow one to be cut off")
        assert is_cut_off(connection, size)
        idle.sendall(b"GET /orders HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(idle).status == 200
    eventually(lambda: users.open == 0 or media_type == "application/json", what="the upstream to be free")
    assert gateway.circuit("users")["failures"] == 0


@pytest.mark.parametrize("more", [b"", b"x"], ids=["silent", "sending on"])
def test_one_that_does_not_hang_up_after_its_last_answer_is_hung_up_on(gateway: GatewayProcess, more: bytes) -> None:
    (pid,) = gateway.pids()
    worker = psutil.Process(pid)
    with connect(gateway) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        assert read_answer(connection).values("Connection") == ["close"]

        def hung_up_on() -> bool:
            try:
                connection.send(more)
            except OSError:
                return True
            return connections(worker, gateway.port) == 0

        eventually(hung_up_on, timeout=5, what="the connection to end")


def test_one_that_takes_its_time_gets_all_of_it(gateway: GatewayProcess) -> None:
    users = gateway.upstreams["users"]
    # Twice the gateway's patience for all of them, and a tenth of it for each.
    pieces = [step for _ in range(20) for step in (b"x" * 200, Pause(0.1))]
    users.script(answer(200, b"", media_type="text/event-stream", length=4000), *pieces)
    with connect(gateway) as connection:
        connection.sendall(b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(connection).body == b"x" * 4000


@pytest.mark.parametrize("media_type", ["application/json", "text/csv", "text/event-stream"])
def test_one_that_takes_a_little_at_a_time_gets_a_large_answer_whole(gateway: GatewayProcess, media_type: str) -> None:
    body = b'{"success": true, "data": "' + b"x" * (16 * MIB) + b'"}'
    gateway.upstreams["users"].script(answer(200, body, media_type=media_type))
    with connect(gateway) as connection:
        connection.sendall(b"GET /users HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answered = HTTPResponse(connection)
        answered.begin()
        begun = time.monotonic()
        seen = bytearray()
        while data := answered.read(256 * 1024):
            seen += data
            # A reader's own pace: three times the gateway's patience for all of it, and never idle for that long.
            time.sleep(max(0.0, begun + 3 * len(seen) / len(body) - time.monotonic()))
    assert bytes(seen) == body


@pytest.mark.parametrize(
    ("by_tls", "field"),
    [(False, b"Connection: close\r\n"), (True, b""), (True, b"Connection: close\r\n")],
    ids=["plain, the last answer", "TLS", "TLS, the last answer"],
)
def test_one_that_takes_less_than_the_kernel_holds_is_not_cut_off(
    gateway: GatewayProcess, closed: GatewayProcess, authority: Authority, by_tls: bool, field: bytes
) -> None:
    server = closed if by_tls else gateway
    body = b'{"success": true, "data": "' + b"x" * (8 * MIB) + b'"}'
    server.upstreams["users"].script(answer(200, body))
    plain = connect(server)
    with authority.trusting.wrap_socket(plain, server_hostname="localhost") if by_tls else plain as connection:
        connection.sendall(b"GET /users HTTP/1.1\r\nHost: localhost\r\n" + field + b"\r\n")
        answered = HTTPResponse(connection)
        answered.begin()
        seen = bytearray()
        begun = time.monotonic()
        # Longer than the gateway's patience twice over, with less than the buffers between them hold.
        while time.monotonic() < begun + 2.5:
            seen += answered.read(16 * 1024)
            time.sleep(0.2)
        assert len(seen) < MIB
        # The rest also takes longer than TLS is given after its last bytes.
        while data := answered.read(128 * 1024):
            seen += data
            time.sleep(0.05)
    assert bytes(seen) == body
