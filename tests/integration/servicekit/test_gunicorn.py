"""The web kit under a real gunicorn: framing, limits and connections as they come over the wire."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from servicekit.database import migrations
from tests.support.ports import free_port
from tests.support.postgres import TestServer
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[3]
LIMIT = 1024 * 1024
SECONDS = 10.0


class Service:
    """A users service behind gunicorn whose database is away, or where `url` says."""

    def __init__(self, log: Path, *start: str, url: str = "postgresql://u:secret@127.0.0.1:1/users") -> None:
        self.port = free_port()
        self.log = log
        environment = os.environ | {
            "USERS_DATABASE_URL": url,
            "USERS_BIND": f"127.0.0.1:{self.port}",
            "SERVICE_THREADS": "2",
        }
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, *(start or ("-m", "servicekit.web.serve", "users"))],
                cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        eventually(self._listens, timeout=30, what="gunicorn listens")

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.is_alive()
        except ConnectionRefusedError:
            return False

    def is_alive(self) -> bool:
        return b" 200 " in self.exchange(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)

    def exchange(self, *pieces: bytes) -> bytes:
        """Send, then read until the service closes the connection."""
        with self.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
            return read_all(connection)

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


def head_and_body(raw: bytes) -> tuple[int, dict[str, str], dict]:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *fields = head.decode("latin-1").split("\r\n")
    pairs = (field.partition(":") for field in fields)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}, json.loads(body or b"null")


def post(*fields: str, path: str = "/users", close: bool = True) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *fields]
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    service = Service(tmp_path_factory.mktemp("gunicorn") / "log")
    yield service
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(SECONDS) == 0


def refused(raw: bytes, status: int, *codes: str) -> dict[str, str]:
    got, fields, body = head_and_body(raw)
    assert (got, body["success"]) == (status, False)
    assert body["error"]["code"] in codes
    assert fields["content-type"] == "application/json"
    assert fields["x-request-id"]
    return fields


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(service):
    refused(service.exchange(post("Content-Length: 100000000")), 413, "body_too_large")


def test_a_large_body_that_is_sent_all_the_same_is_a_413_too(service):
    refused(service.exchange(post(f"Content-Length: {LIMIT + 1}"), b" " * (LIMIT + 1)), 413, "body_too_large")


@pytest.mark.parametrize(
    ("request_line", "framing"),
    [
        ("POST /users HTTP/1.1", "Content-Length: 100000000"),
        ("POST /nothing HTTP/1.1", "Content-Length: 2"),
        ("PATCH /users HTTP/1.1", "Transfer-Encoding: chunked"),
        ("GET /livez HTTP/1.1", "Content-Length: 2"),
    ],
)
def test_an_answer_before_the_body_is_the_last_of_its_connection_and_occupies_no_thread(service, request_line, framing):
    with ExitStack() as connections:
        for _ in range(4):  # there are two threads
            connection = connections.enter_context(service.connect())
            connection.settimeout(4)
            connection.sendall(f"{request_line}\r\nHost: localhost\r\n{framing}\r\n\r\n".encode())
            assert b"\r\nConnection: close\r\n" in read_all(connection)


def test_a_body_that_nobody_reads_costs_no_connection_if_it_has_come(service):
    with service.connect() as connection:
        connection.sendall(post("Content-Length: 2", path="/nothing", close=False) + b"{}")
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"HTTP/1.1 200" in read_all(connection)


def test_a_coding_beside_the_chunks_is_a_501(service):
    refused(service.exchange(post("Transfer-Encoding: gzip, chunked"), b"0\r\n\r\n"), 501, "not_supported")


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://localhost/nothing", "strange.example", 404),
        ("http://strange.example/nothing", "localhost", 421),
    ],
)
def test_the_host_of_an_absolute_target_counts(service, target, host, status):
    raw = service.exchange(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert head_and_body(raw)[0] == status


def test_a_chunked_body_has_the_same_limit(service):
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    raw = service.exchange(post("Transfer-Encoding: chunked"), chunk * 17, b"0\r\n\r\n")
    refused(raw, 413, "body_too_large")


def test_a_chunked_body_within_the_limit_is_read(service):
    raw = service.exchange(post("Transfer-Encoding: chunked"), b'9\r\n{"name": \r\n4\r\n"x"}\r\n0\r\n\r\n')
    got, _, body = head_and_body(raw)
    assert got == 400
    assert body["error"]["details"] == [{"field": "email", "message": "is required"}]


@pytest.mark.parametrize(
    "chunks", [b"zz\r\nxx\r\n", b"5\r\nabcdefgh", b"-1\r\n", b"4\r\nabcdXX0\r\n\r\n", b"1\r\n \r\n" * 30_000]
)
def test_broken_chunks_are_a_400_and_no_crash(service, chunks):
    with service.connect() as connection:
        connection.sendall(post("Transfer-Encoding: chunked") + chunks)
        connection.shutdown(socket.SHUT_WR)
        refused(read_all(connection), 400, "bad_request")


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "once the head is acknowledged"])
def test_a_body_that_comes_behind_its_head_is_read(service, at_once):
    body = b'{"name": "x"}'
    with service.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, at_once)
        head = post(f"Content-Length: {len(body)}", close=False)
        for pieces in ((head, body), (head, body[:3], body[3:]), (head[:-2], head[-2:], body)):
            for piece in pieces:
                connection.sendall(piece)
            assert b'[{"field":"email","message":"is required"}]' in connection.recv(65536)


@pytest.mark.parametrize(
    "sent",
    [
        post("Content-Length: 100") + b"{",
        post("Content-Length: 100", close=False),
        post("Transfer-Encoding: chunked") + b"20\r\n{",  # 32 bytes announced, one sent
    ],
)
def test_a_body_that_ends_early_is_a_400_and_no_crash(service, sent):
    with service.connect() as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        refused(read_all(connection), 400, "bad_request")


def test_head_carries_fields_and_no_body(service):
    raw = service.exchange(b"HEAD /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    got, fields, body = head_and_body(raw)
    assert (got, body) == (200, None)
    assert int(fields["content-length"]) > 1000


def test_a_body_of_a_get_is_not_taken_for_the_next_request(service):
    with service.connect() as connection:
        hidden = b"DELETE /users HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(hidden), hidden)
            + b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        received = read_all(connection)
    assert received.count(b"HTTP/1.1 200") == 1
    assert b"HTTP/1.1 405" not in received


def test_clients_that_do_not_hang_up_hold_up_nobody(service):
    with ExitStack() as connections:
        for _ in range(10):
            silent = connections.enter_context(service.connect())
            silent.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert read_all(silent).startswith(b"HTTP/1.1 200")
        assert service.exchange(b"GET /livez HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200")
        # And are hung up on in the end.
        eventually(lambda: not established(service), what="the service closes their connections")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET /livez HTTP/1.1\r\nHo", id="half a head"),
        pytest.param(post("Content-Length: 2") + b"{", id="half a body"),
        pytest.param(post("Transfer-Encoding: chunked") + b"2\r\n{", id="half a chunk"),
    ],
)
def test_clients_that_stop_in_the_midst_of_a_request_occupy_no_thread(service, sent):
    with ExitStack() as connections:
        for _ in range(500):  # there are two threads
            connections.enter_context(service.connect()).sendall(sent)
        assert service.exchange(b"GET /livez HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200")


def established(service: Service) -> list[object]:
    (worker,) = psutil.Process(service.process.pid).children()
    return [one for one in worker.net_connections("tcp") if one.status != psutil.CONN_LISTEN]


def test_a_database_that_is_away_is_a_503_that_tells_no_address(service):
    for path in ("/users", "/users/018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f"):
        raw = service.exchange(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        fields = refused(raw, 503, "database_unavailable")
        assert fields["retry-after"] == "1"
        assert b"127.0.0.1" not in raw
        assert b"secret" not in raw
    raw = service.exchange(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    refused(raw, 503, "not_ready")
    assert head_and_body(raw)[2]["error"]["details"][0]["field"] == "database"


def test_a_silent_database_keeps_no_request_past_its_deadline_and_no_thread_for_good(tmp_path):
    # A server of its own: no other test may find its database silent.
    server = TestServer(tmp_path)
    server.start()
    url = server.url(server.create())
    migrations.upgrade("service_users", url)
    service = Service(tmp_path / "log", url=url)
    path = f"/users/{uuid.uuid4()}"
    head = f"{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Request-Timeout-Ms: 500\r\n"
    read = f"GET {head}\r\n".encode()
    change = f'PATCH {head}Content-Type: application/json\r\nContent-Length: 15\r\n\r\n{{"name": "new"}}'.encode()
    # Where work is to be done, for a slow machine too.
    patient, patient_change = (request.replace(b"Timeout-Ms: 500", b"Timeout-Ms: 9000") for request in (read, change))
    try:
        for request in (patient, patient_change):
            refused(service.exchange(request), 404, "user_not_found")
        with server.silent(), ExitStack() as connections:
            asking = [connections.enter_context(service.connect()) for _ in range(8)]  # there are two threads
            for number, connection in enumerate(asking):
                connection.sendall(read if number % 2 else change)
            assert service.is_alive()
            for connection in asking:
                connection.settimeout(3)
                refused(read_all(connection), 504, "deadline_exceeded")
            # No thread waits on: one says why.
            refused(service.exchange(patient), 503, "database_unavailable")
        # What was told late counts as what its client was told.
        eventually(
            lambda: [[line.get("status") for line in service.lines()].count(told) for told in (503, 504)] == [1, 8],
            what="the lines of the log",
        )
        eventually(lambda: b" 404 " in service.exchange(patient_change), timeout=SECONDS, what="it is used again")
    finally:
        service.process.terminate()
        assert service.process.wait(SECONDS) == 0
        server.stop()


def test_every_line_of_the_log_is_json_with_the_service_and_no_password(service):
    service.exchange(
        b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: look-here\r\nConnection: close\r\n\r\n"
    )
    eventually(lambda: "look-here" in service.log.read_text(), what="the line of the request")
    lines = service.lines()
    assert {line["service"] for line in lines} == {"service_users"}
    (request,) = [line for line in lines if line.get("request_id") == "look-here"]
    assert (request["event"], request["method"], request["route"], request["status"]) == (
        "request", "GET", "unmatched", 404,
    )  # fmt: skip
    assert "secret" not in service.log.read_text()
    assert "request_crashed" not in service.log.read_text()


def test_a_wrong_setting_ends_the_start_with_one_clear_line(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("USERS_")}
    ended = subprocess.run(
        [sys.executable, "-m", "servicekit.web.serve", "users"],
        cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert ended.returncode != 0
    assert "service_users cannot start: USERS_DATABASE_URL: is not set" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_worker_whose_master_was_killed_leaves_the_port_and_answers_what_is_under_way(tmp_path):
    service = Service(tmp_path / "log")
    (worker,) = psutil.Process(service.process.pid).children()
    try:
        with service.connect() as kept, service.connect() as under_way:
            for connection in (kept, under_way):
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            under_way.sendall(post("Content-Length: 2", close=False) + b"{")
            service.process.kill()
            service.process.wait()

            eventually(lambda: can_be_listened_on(service.port), what="the port is free for another master")
            under_way.sendall(b"}")
            # Up to the end of the connection, which comes with the answer; whether the answer says so depends on
            # whether its head was begun before the master died.
            refused(read_all(under_way), 400, "invalid_input")
            assert b"HTTP/1.1" not in read_all(kept)
        eventually(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, what="the worker ends")
    finally:
        if worker.is_running():
            worker.kill()


def test_a_worker_that_is_told_to_stop_answers_who_came_before_and_leaves_the_port(tmp_path):
    service = Service(tmp_path / "log")
    (worker,) = psutil.Process(service.process.pid).children()
    try:
        with ExitStack() as connections:
            under_way = connections.enter_context(service.connect())
            under_way.sendall(post("Content-Length: 2") + b"{")
            worker.suspend()
            waiting = [connections.enter_context(service.connect()) for _ in range(20)]
            for connection in waiting:
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for process in (service.process, worker):
                process.send_signal(signal.SIGTERM)
            worker.resume()

            assert [read_all(connection)[:12] for connection in waiting] == [b"HTTP/1.1 200"] * len(waiting)
            eventually(lambda: can_be_listened_on(service.port), what="nobody can connect any more")
            under_way.sendall(b"}")
            refused(read_all(under_way), 400, "invalid_input")
        assert service.process.wait(SECONDS) == 0
    finally:
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait()
        if worker.is_running():
            worker.kill()


def can_be_listened_on(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()
        except OSError:
            return False
        return True


def test_a_service_has_room_for_all_its_connections_before_they_come(service):
    (worker,) = psutil.Process(service.process.pid).children()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines())
    limit, _ = worker.rlimit(psutil.RLIMIT_NOFILE)
    assert int(status["FDSize"]) >= min(limit, 65_536) > 256
