"""No room for shared memory, neither in /dev/shm nor in the folder for temporary files."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.waiting import eventually

#: No file may become larger, in bytes: less than the shared memory takes, enough for the log of a test.
ROOM = 48 * 1024


def leave_no_room() -> None:
    """A limit that holds for root too, and that every child inherits."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    gateway = GatewayProcess(
        folder / "log",
        before=leave_no_room,
        GATEWAY_PROCESSES=request.param,
        GATEWAY_RATE_LIMIT="1000/60",
        TMPDIR=str(folder),
    )
    yield gateway
    assert gateway.stop() == 0
    assert not list(folder.glob("siteworks-metrics-*"))


@pytest.mark.parametrize("gateway", ["1", "2"], indirect=True)
def test_it_starts_says_so_and_serves(gateway: GatewayProcess) -> None:
    assert gateway.client.get("/users").status == 200
    health = gateway.client.get("/health").json["data"]
    assert health["status"] == "degraded"
    assert {(one["scope"], one["state"]) for one in health["upstreams"].values()} == {("process", "closed")}
    assert '"circuits_not_shared"' in gateway.log.read_text()
    assert gateway.client.get("/metrics").status == 200
    assert gateway.client.get("/readyz").status == 200


@pytest.mark.parametrize("gateway", ["2"], indirect=True)
def test_each_process_has_circuits_of_its_own_that_open_and_heal(gateway: GatewayProcess) -> None:
    assert {line for line in ("quotas_not_shared", "metrics_not_shared") if line in gateway.log.read_text()} == {
        "quotas_not_shared",
        "metrics_not_shared",
    }
    users = gateway.upstreams["users"]
    users.stop()
    # Which process is asked is chance; at most four failures are left in each when the fifth opens it.
    eventually(lambda: gateway.client.get("/users").code == "circuit_open", what="a circuit to open")
    assert gateway.client.get("/orders").status == 200
    users.start()
    eventually(
        lambda: [gateway.client.get("/users").status for _ in range(8)] == [200] * 8, timeout=30, what="both to heal"
    )
    assert gateway.client.get("/health").json["data"]["status"] == "degraded"
