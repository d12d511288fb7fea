"""What a gateway holds of its clients' bodies and answers stays below its container's limit, however many they are."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.memory import JSON, limit_of, peak
from tests.support.raw_http import RawAnswer
from tests.support.upstream import Wait, answer, bad, good
from tests.support.waiting import eventually

MIB = 1024 * 1024
CLIENTS = 40


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(tmp_path / "log")
    yield gateway
    gateway.stop()


def send(gateway: GatewayProcess) -> RawAnswer:
    return gateway.client.request("POST", "/tasks/batch", b'"' + b"x" * 15 * MIB + b'"', fields=JSON)


def refused_well(seen: RawAnswer) -> bool:
    if seen.status == 200:
        return False
    told = (seen.status, seen.code, seen.value("Retry-After"), seen.value("Proxy-Status"))
    return told == (503, "overloaded", "1", "siteworks; error=proxy_internal_error")


def test_bodies_of_many_clients_at_once_stay_below_the_limit_and_small_requests_go_on(gateway: GatewayProcess) -> None:
    (worker,) = gateway.pids()
    go_on = Event()
    gateway.upstreams["tasks"].script(Wait(go_on), good({}))
    with ThreadPoolExecutor(CLIENTS) as clients:
        asked = [clients.submit(send, gateway) for _ in range(CLIENTS)]
        eventually(lambda: sum(one.done() for one in asked) >= CLIENTS - 12, timeout=30, what="most to be refused")
        assert gateway.client.request("POST", "/orders", b"{}" + b" " * 60_000, fields=JSON).status == 200
        go_on.set()
        answers = [one.result() for one in asked]
    counted = Counter(seen.status for seen in answers)
    assert counted.keys() == {200, 503}
    assert counted[200] >= 8
    assert all(refused_well(seen) for seen in answers if seen.status == 503)
    assert peak(gateway.process.pid) < limit_of("api_gateway")
    assert gateway.pids() == [worker]
    # What was taken was given back.
    assert [send(gateway).status for _ in range(2)] == [200, 200]
    assert (gateway.circuit("tasks")["state"], gateway.circuit("tasks")["failures"]) == ("closed", 0)


def test_large_answers_to_clients_that_do_not_read_stay_below_the_limit(gateway: GatewayProcess) -> None:
    (worker,) = gateway.pids()
    orders = gateway.upstreams["orders"]
    orders.script(answer(200, b'{"success":true,"data":"' + b"x" * 17 * MIB + b'"}'))
    slow: list[socket.socket] = []

    def ask_without_reading() -> None:
        slow.append(socket.create_connection(("127.0.0.1", gateway.port)))
        slow[-1].sendall(b"GET /orders HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def is_refused_behind_one_more() -> bool:
        ask_without_reading()
        return refused_well(gateway.client.get("/orders"))

    try:
        # One by one, or on a busy machine none would have its answer in time and keep it.
        eventually(is_refused_behind_one_more, timeout=30, what="no room for more")
        while len(slow) < CLIENTS:
            ask_without_reading()
        assert gateway.client.get("/users").status == 200
        # What was done is told: to hear that there is no memory for it, a client would do it again.
        gateway.upstreams["users"].script(answer(201, b'{"success":true,"data":"' + b"x" * 17 * MIB + b'"}'))
        assert gateway.client.request("POST", "/users", b"{}", fields=JSON).status == 201
        orders.wait_for(CLIENTS)
        assert peak(gateway.process.pid) < limit_of("api_gateway")
    finally:
        for connection in slow:
            connection.close()
    eventually(lambda: gateway.client.get("/orders").status == 200, timeout=30, what="room again")
    assert gateway.pids() == [worker]
    assert (gateway.circuit("orders")["state"], gateway.circuit("orders")["failures"]) == ("closed", 0)


def test_requests_that_wait_behind_others_on_their_connection_are_left_unread(gateway: GatewayProcess) -> None:
    request = b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n"
    before = peak(gateway.process.pid)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        pusher = Thread(target=push, args=(connection, request * 25_000, 100), daemon=True)
        pusher.start()
        read(connection, answers=1000)
        assert peak(gateway.process.pid) - before < 32 * MIB
    pusher.join(10)


def test_a_large_head_behind_another_request_is_read_to_its_end(gateway: GatewayProcess) -> None:
    large = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 8000) for number in range(90))
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        for fields in (b"", large):
            connection.sendall(b"GET /users HTTP/1.1\r\nHost: localhost\r\n" + fields + b"\r\n")
        read(connection, answers=2)


def read(connection: socket.socket, *, answers: int) -> None:
    """Read on until so many good answers have begun."""
    received = bytearray()
    while received.count(b"HTTP/1.1 200 ") < answers:
        piece = connection.recv(65536)
        assert piece, bytes(received[-1000:])
        received += piece


def push(connection: socket.socket, piece: bytes, times: int) -> None:
    """Send as much as is taken, until the connection is closed."""
    with suppress(OSError):
        for _ in range(times):
            connection.sendall(piece)


def test_a_service_that_refuses_requests_for_their_size_keeps_its_circuit_closed(gateway: GatewayProcess) -> None:
    gateway.upstreams["tasks"].script(bad(503, "overloaded"))
    assert {gateway.client.get("/tasks").status for _ in range(10)} == {503}
    assert (gateway.circuit("tasks")["state"], gateway.circuit("tasks")["failures"]) == ("closed", 0)
