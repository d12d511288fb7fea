"""Several processes of one service behind one port are one service."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from service_users.app import create_app
from service_users.settings import UsersSettings
from tests.support.frozen import freezing
from tests.support.gateway import UPSTREAMS, GatewayServer
from tests.support.postgres import ServiceDatabase, TestServer
from tests.support.programs import Program
from tests.support.raw_http import RawAnswer, RawClient
from tests.support.upstream import ScriptedUpstream, bad
from tests.support.waiting import eventually

PROCESSES = 2
JSON = (("Content-Type", "application/json"),)
#: Of a load, and how many answers show that it is under way.
CLIENTS, ENOUGH = 6, 60


class Several(Program):
    """A service of several processes."""

    def __init__(self, folder: Path, name: str, *lines: str) -> None:
        super().__init__(folder, name, f"SERVICE_PROCESSES={PROCESSES}", *lines)
        self.client = RawClient(self.port)
        eventually(self.complete, what="all processes")

    def complete(self) -> bool:
        return self.life()["processes"] == len(self.pids()) == PROCESSES

    def life(self) -> dict[str, object]:
        return dict(self.client.get("/livez").json["data"])

    @contextmanager
    def alone(self, pid: int) -> Iterator[None]:
        """Freeze every process but one, so that this one answers."""
        with freezing(self.pids() - {pid}):
            yield

    def connections(self, pid: int) -> list[object]:
        """Those of clients."""
        found = psutil.Process(pid).net_connections("tcp")
        return [one for one in found if one.status == psutil.CONN_ESTABLISHED and one.laddr.port == self.port]

    def kill_one(self) -> None:
        """Kill a process that is serving, and wait for its successor."""
        killed = min(self.pids())
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: killed not in self.pids() and self.complete(), timeout=30, what="a new process")

    def reload(self) -> None:
        before = self.pids()
        self.hang_up()
        eventually(lambda: not self.pids() & before and self.complete(), timeout=40, what="new processes")

    def counted(self, route: str, status: int) -> float:
        text = self.client.get("/metrics").body.decode()
        found = re.findall(
            rf'^siteworks_http_requests_total\{{.*route="{route}".*status="{status}"\}} (\S+)$', text, re.M
        )
        return sum(map(float, found))


@pytest.fixture(scope="module")
def database(postgres_server: TestServer) -> Iterator[ServiceDatabase]:
    yield from postgres_server.service_database("service_users")


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory, database: ServiceDatabase) -> Iterator[Several]:
    started = Several(tmp_path_factory.mktemp("users"), "users", f"USERS_DATABASE_URL={database.url}")
    yield started
    assert started.stop() == 0


class Load:
    """Clients that create users, each on one connection as long as it lasts; a context in which they do."""

    def __init__(self, client: RawClient, name: str) -> None:
        self._client = client
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._create, args=(f"{name}{one}",)) for one in range(CLIENTS)]
        self.answers: dict[str, RawAnswer] = {}
        #: Addresses sent for which no answer came.
        self.unanswered: set[str] = set()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.goes_on()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def goes_on(self) -> None:
        before = len(self.answers)
        eventually(lambda: len(self.answers) >= before + ENOUGH, timeout=20, what="answers")

    def created(self) -> set[str]:
        assert {answer.status for answer in self.answers.values()} == {201}
        return set(self.answers)

    def _create(self, client: str) -> None:
        number = 0
        while not self._ends.is_set():
            try:
                with self._client.connect() as connection:
                    while not self._ends.is_set():
                        number += 1
                        self._send(connection, f"{client}-{number}@example.com")
            except (OSError, AssertionError):  # no answer, or half of one
                self._ends.wait(0.01)

    def _send(self, connection: socket.socket, email: str) -> None:
        self.unanswered.add(email)
        body = json.dumps({"name": "n", "email": email}).encode()
        self.answers[email] = self._client.request("POST", "/users", body, fields=JSON, connection=connection)
        self.unanswered.discard(email)


def emails(database: ServiceDatabase) -> set[str]:
    return {row[0] for row in database.database.once("SELECT email FROM users", {})}


def test_a_killed_process_takes_with_it_only_what_it_was_doing_and_what_it_counted_stays(
    users: Several, database: ServiceDatabase
) -> None:
    before, rows_before = users.counted("/users", 201), emails(database)
    with Load(users.client, "killed") as load:
        users.kill_one()
        load.goes_on()
    made, rows = load.created(), emails(database) - rows_before
    assert made <= rows <= made | load.unanswered
    assert len(load.unanswered) <= CLIENTS
    # Each process says the same, also of those that are gone.
    for pid in users.pids():
        with users.alone(pid):
            assert len(made) <= users.counted("/users", 201) - before <= len(rows)
            assert users.life()["processes"] == PROCESSES


def test_what_a_process_counts_all_tell_in_the_series_of_a_single_one(
    users: Several, database: ServiceDatabase
) -> None:
    before = users.counted("/users/{id}", 400)
    for number, pid in enumerate(users.pids(), 1):
        with users.alone(pid):
            assert users.client.get("/users/7").status == 400
            assert users.counted("/users/{id}", 400) == before + number
    single = create_app(UsersSettings(users_database_url=database.url)).test_client()
    assert single.get("/users/7").status_code == 400
    found, expected = users.client.get("/metrics").body.decode(), single.get("/metrics").text
    assert series(expected, "/users/{id}") <= series(found)
    assert families(found) == families(expected)


def families(exposition: str) -> set[str]:
    named = re.findall(r"^# TYPE (siteworks_\S+ \w+)$", exposition, re.M)
    return {one for one in named if "_created" not in one}


def series(exposition: str, route: str = "") -> set[str]:
    named = re.findall(r"^(siteworks_\S+) ", exposition, re.M)
    return {one for one in named if route in one and "_created" not in one}


def test_through_the_gateway_neither_a_kill_nor_a_reload_is_noticed(users: Several, tmp_path: Path) -> None:
    gateway = GatewayServer(tmp_path / "gateway", dict.fromkeys(UPSTREAMS, f"http://127.0.0.1:{users.port}"))
    seen: list[int] = []
    ends = threading.Event()

    def read() -> None:
        while not ends.is_set():
            seen.append(gateway.client.get("/users?limit=1").status)

    clients = [threading.Thread(target=read) for _ in range(4)]
    try:
        for client in clients:
            client.start()
        # A request that is the first of its connection is never repeated.
        eventually(lambda: len(seen) > ENOUGH, what="connections that are kept")
        users.kill_one()
        users.reload()
    finally:
        ends.set()
        for client in clients:
            client.join()
        gateway.stop()
    assert set(seen) == {200}


def test_clients_that_come_at_once_are_shared_among_the_processes(users: Several) -> None:
    # One that still starts takes none.
    for pid in users.pids():
        with users.alone(pid):
            users.life()
    with ExitStack() as kept:
        for connection in [kept.enter_context(users.client.connect()) for _ in range(32)]:
            assert users.client.request("GET", "/livez", connection=connection).status == 200
        counts = [len(users.connections(pid)) for pid in users.pids()]
    assert sum(counts) >= 32
    assert min(counts) >= 8


def test_what_one_process_holds_counts_in_the_others_until_it_ends(users: Several) -> None:
    head = "POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    first, second = users.pids()
    with ExitStack() as held:
        with users.alone(first):
            for _ in range(80):
                held.enter_context(users.client.connect()).sendall(head.encode() + b" " * 900_000)
            eventually(lambda: refused(users), what="no more room")
        with users.alone(second):
            assert refused(users)
        os.kill(first, signal.SIGKILL)
        eventually(lambda: first not in users.pids() and users.complete(), timeout=30, what="a new process")
        assert not refused(users)


def refused(service: Several) -> bool:
    body = b'"' + b"x" * 900_000 + b'"'
    answer = service.client.request("POST", "/users", body, fields=JSON)
    assert answer.status in (400, 503)
    return answer.status == 503


def test_stopping_leaves_no_row_without_an_answer(tmp_path: Path, database: ServiceDatabase) -> None:
    users = Several(tmp_path, "users", f"USERS_DATABASE_URL={database.url}")
    before = emails(database)
    with Load(users.client, "stopped") as load:
        assert users.stop() == 0
    assert emails(database) - before == load.created()


def test_all_processes_of_orders_share_the_circuit_of_users(tmp_path: Path) -> None:
    upstream = ScriptedUpstream()
    orders = Several(tmp_path, "orders", f"USERS_URL={upstream.url}")
    order = {
        "user_id": "018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f",
        "items": [{"product": "bricks", "quantity": 1, "price": "1.00"}],
    }

    def answered() -> str:
        return orders.client.request("POST", "/orders", json.dumps(order).encode(), fields=JSON).code

    try:
        upstream.script(bad(503, "database_unavailable"))
        first, second = orders.pids()
        with orders.alone(first):
            assert [answered() for _ in range(5)] == ["users_unavailable"] * 5
        assert len(upstream.requests()) == 5
        with orders.alone(second):
            assert [answered() for _ in range(5)] == ["users_unavailable"] * 5
        # Less than by a circuit of its own, even with a trial once the open time is over.
        assert len(upstream.requests()) < 10
    finally:
        orders.stop()
        upstream.stop()
