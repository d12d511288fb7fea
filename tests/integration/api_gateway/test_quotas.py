"""What one client may send, to a gateway of two processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_gateway.limits import Quota
from api_gateway.shared_quotas import QuotaMemory, SharedRateLimiter
from tests.support.circuit_processes import FORK
from tests.support.gateway import GatewayProcess
from tests.support.waiting import eventually

# The child uses nothing but one lock.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Each test is other clients."""
    log = tmp_path_factory.mktemp("gateway") / "log"
    gateway = GatewayProcess(log, GATEWAY_PROCESSES="2", GATEWAY_RATE_LIMIT="6/600", TRUSTED_PROXIES="127.0.0.0/8")
    eventually(lambda: len(gateway.pids()) == 2, what="both processes")
    yield gateway
    gateway.stop()


def ask(gateway: GatewayProcess, client: str) -> tuple[int, str | None]:
    seen = gateway.client.get("/users", ("X-Forwarded-For", client))
    return seen.status, seen.value("RateLimit")


def test_the_limit_is_the_machines_whichever_process_takes_a_request(gateway: GatewayProcess) -> None:
    first, second = gateway.pids()
    began = time.monotonic()
    for turn in range(3):
        for pid in (first, second):
            with gateway.alone(pid):
                status, left = ask(gateway, "2.2.2.2")
            assert status == 200
            assert left is not None
            assert left.startswith(f'"default";r={5 - 2 * turn - (pid == second)};')
    for pid in (first, second):
        with gateway.alone(pid):
            status, left = ask(gateway, "2.2.2.2")
            assert (status, (left or "").startswith('"default";r=0;t=')) == (429, True)
            assert 100 - (time.monotonic() - began) <= int((left or "").rpartition("=")[2]) <= 100
            assert ask(gateway, "3.3.3.3")[0] == 200


def test_a_client_on_one_connection_gets_all_of_it(gateway: GatewayProcess) -> None:
    with gateway.client.connect() as connection:
        seen = [gateway.client.request("GET", "/users", connection=connection).status for _ in range(7)]
    assert seen == [200] * 6 + [429]


def test_neither_a_killed_process_nor_a_reload_gives_anything_back(gateway: GatewayProcess) -> None:
    assert [ask(gateway, "4.4.4.4")[0] for _ in range(7)] == [200] * 6 + [429]
    before = gateway.pids()
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: len(gateway.pids()) == 2 and before[0] not in gateway.pids(), what="a new process")
    for pid in gateway.pids():
        with gateway.alone(pid):
            assert ask(gateway, "4.4.4.4")[0] == 429
    before = gateway.pids()
    gateway.process.send_signal(signal.SIGHUP)
    eventually(
        lambda: len(gateway.pids()) == 2 and not set(before) & set(gateway.pids()), timeout=40, what="new processes"
    )
    assert ask(gateway, "4.4.4.4")[0] == 429


def test_proxies_reached_over_an_ipv6_socket_are_known_and_their_clients_are_told_apart(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "log", host="[::]", GATEWAY_RATE_LIMIT="1/600", TRUSTED_PROXIES="127.0.0.0/8")
    try:
        for client, again in (
            ("203.0.113.7:5123", "203.0.113.7:5124"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("203.0.113.8, ::ffff:127.0.0.2", "203.0.113.8"),
        ):
            assert [ask(gateway, one)[0] for one in (client, again)] == [200, 429]
        seen = gateway.upstreams["users"].requests()[0]
        assert seen.values("X-Forwarded-For") == ["203.0.113.7:5123, 127.0.0.1"]
        assert seen.values("Forwarded") == ["for=127.0.0.1;host=localhost;proto=http"]
    finally:
        gateway.stop()


def test_a_frozen_process_that_has_a_clients_row_stops_nobody() -> None:
    shared = QuotaMemory(rows=1)
    limiter = SharedRateLimiter(Quota(1, 60), shared)
    ours, theirs = FORK.Pipe()

    def hold() -> None:
        shared.memory.lock(0, 1.0)
        theirs.send("held")
        signal.pause()

    holder = FORK.Process(target=hold, daemon=True)
    holder.start()
    assert holder.pid is not None
    try:
        assert ours.poll(10)
        os.kill(holder.pid, signal.SIGSTOP)
        # Counted all the same, by this process alone.
        assert [limiter.take("a", 0).allowed for _ in range(2)] == [True, False]
    finally:
        holder.kill()
        holder.join(10)
    assert [limiter.take("a", 0).allowed for _ in range(2)] == [True, False]
