"""Many who bring a password at once: the real users service behind the real gateway."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway import CHECKOUT, GatewayServer
from tests.support.ports import free_port
from tests.support.postgres import ServiceDatabase
from tests.support.raw_http import RawAnswer, RawClient
from tests.support.waiting import eventually

CLIENTS = 40


@pytest.fixture
def gateway(users_database: ServiceDatabase, tmp_path: Path) -> Iterator[GatewayServer]:
    port = free_port()
    environment = {"USERS_DATABASE_URL": users_database.url, "USERS_BIND": f"127.0.0.1:{port}"}
    with (tmp_path / "users.log").open("wb") as log:
        users = subprocess.Popen(
            [sys.executable, "-m", "servicekit.web.serve", "users"],
            cwd=CHECKOUT, env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    nobody = f"http://127.0.0.1:{free_port()}"
    urls = {"users": f"http://127.0.0.1:{port}", "orders": nobody, "tasks": nobody, "events": nobody}
    gateway = GatewayServer(tmp_path / "gateway.log", urls)
    try:
        eventually(lambda: _answers(RawClient(port)), timeout=30, what="the users service answers")
        yield gateway
    finally:
        gateway.stop()
        users.terminate()
        users.wait(40)


def _answers(client: RawClient) -> bool:
    try:
        return client.get("/readyz").status == 200
    except OSError:
        return False


def test_forty_sign_ups_at_once_leave_every_read_a_200_and_the_circuit_closed(gateway: GatewayServer) -> None:
    together = threading.Barrier(CLIENTS + 4)
    signed_up: list[RawAnswer] = []
    reads: list[int] = []
    over = threading.Event()

    def sign_up(number: int) -> None:
        body = b'{"email": "user%d@example.com", "name": "x", "password": "correct horse"}' % number
        fields = (("Content-Type", "application/json"),)
        together.wait(20)
        for _ in range(3):
            signed_up.append(RawClient(gateway.port).request("POST", "/users", body, fields=fields))

    def read() -> None:
        together.wait(20)
        while not over.is_set():
            reads.append(RawClient(gateway.port).get("/users?limit=1").status)

    writers = [threading.Thread(target=sign_up, args=(number,)) for number in range(CLIENTS)]
    readers = [threading.Thread(target=read) for _ in range(4)]
    for thread in (*writers, *readers):
        thread.start()
    for thread in writers:
        thread.join(60)
    over.set()
    for thread in readers:
        thread.join(20)

    assert len(signed_up) == 3 * CLIENTS
    assert {(one.status, one.code if one.status >= 400 else "") for one in signed_up} <= {
        (201, ""),
        (409, "email_taken"),
        (503, "too_many_passwords"),
    }
    refused = [one for one in signed_up if one.status == 503]
    assert refused
    assert {one.value("retry-after") for one in refused} == {"1"}
    assert any(one.status == 201 for one in signed_up)
    assert set(reads) == {200}
    assert len(reads) >= 4, "each reader was answered while passwords were hashed"
    circuit = gateway.circuit("users")
    assert (circuit["state"], circuit["generation"], circuit["failures"]) == ("closed", 0, 0)
