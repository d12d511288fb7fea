"""Several gateway processes behind one port are one gateway."""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.upstream import ScriptedUpstream, bad
from tests.support.waiting import eventually

PROCESSES = 4


@pytest.fixture(scope="module")
def _several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway") / "log", GATEWAY_PROCESSES=str(PROCESSES))
    yield process
    process.stop()


@pytest.fixture
def gateway(_several: GatewayProcess) -> GatewayProcess:
    eventually(lambda: len(_several.pids()) == PROCESSES, what="all processes")
    _several.reset()
    return _several


@pytest.fixture
def users(gateway: GatewayProcess) -> ScriptedUpstream:
    return gateway.upstreams["users"]


def circuit_of_each(gateway: GatewayProcess) -> list[dict[str, Any]]:
    """What each process says about the circuit of users, without the time that passes meanwhile."""
    found = []
    for pid in gateway.pids():
        with gateway.alone(pid):
            shown = gateway.circuit("users")
        shown.pop("retry_in")
        found.append(shown)
    return found


def break_circuit(gateway: GatewayProcess) -> None:
    for _ in range(5):
        assert gateway.client.get("/users").code == "users_unavailable"


def test_status_lists_them_all(gateway: GatewayProcess) -> None:
    listed = gateway.client.get("/status").json["data"]["processes"]
    assert len({one["pid"] for one in listed}) == PROCESSES
    assert all(one["uptime_seconds"] > 0 for one in listed)
    assert gateway.client.get("/livez").json["data"]["processes"] == PROCESSES


def test_health_is_the_same_from_every_process(gateway: GatewayProcess, users: ScriptedUpstream) -> None:
    for _ in range(20):
        assert gateway.client.get("/users").status == 200

    def said_by_all() -> dict[str, Any] | None:
        first, *others = circuit_of_each(gateway)
        return first if others == [first] * (PROCESSES - 1) else None

    # A probe may come between two of them.
    said = eventually(said_by_all, what="all to say the same")
    assert (said["state"], said["calls"], said["scope"]) == ("closed", 20, "machine")


def test_five_failures_open_it_for_all_whoever_saw_them(gateway: GatewayProcess, users: ScriptedUpstream) -> None:
    users.stop()
    all_pids = gateway.pids()

    def ask_each() -> list[str]:
        codes = []
        for pid in (*all_pids, all_pids[0], all_pids[-1]):
            with gateway.alone(pid):
                codes.append(gateway.client.get("/users").code)
        return codes

    assert gateway.opened("users", ask_each) == ["users_unavailable"] * 5 + ["circuit_open"]


def test_a_change_of_state_is_logged_once(gateway: GatewayProcess, users: ScriptedUpstream) -> None:
    before = gateway.log.read_text().count('"consecutive_failures"')
    users.stop()
    break_circuit(gateway)
    assert gateway.circuit("users")["state"] != "closed"
    assert gateway.log.read_text().count('"consecutive_failures"') == before + 1


def test_a_forced_state_reaches_every_process(gateway: GatewayProcess) -> None:
    gateway.force("users", "open")
    shown = circuit_of_each(gateway)
    assert [(one["state"], one["forced"]) for one in shown] == [("open", True)] * PROCESSES


def test_it_outlives_a_killed_process(gateway: GatewayProcess) -> None:
    gateway.force("users", "open")
    before = gateway.pids()
    os.kill(before[0], signal.SIGKILL)

    def replaced() -> bool:
        now = gateway.pids()
        return len(now) == PROCESSES and before[0] not in now

    eventually(replaced, what="a new process")
    shown = circuit_of_each(gateway)
    assert [(one["state"], one["forced"]) for one in shown] == [("open", True)] * PROCESSES
    assert gateway.client.get("/users").code == "circuit_open"


def test_a_frozen_process_that_has_a_circuits_lock_stops_nobody(
    gateway: GatewayProcess, users: ScriptedUpstream
) -> None:
    users.stop()
    with gateway.held_up(0):
        for _ in range(10):
            assert gateway.client.get("/users").code == "users_unavailable"
        assert gateway.client.get("/orders").status == 200
        health = gateway.client.get("/health").json["data"]
        assert (health["status"], health["upstreams"]["users"]["held_up"]) == ("degraded", True)
        assert (health["upstreams"]["users"]["state"], health["upstreams"]["orders"]["held_up"]) == ("closed", False)
        refused = gateway.force("users", "open")
        assert (refused.status, refused.code, refused.value("Retry-After")) == (503, "circuit_held_up", "1")
        assert 'siteworks_circuit_uncounted_total{circuit="users"} 10.0' in gateway.client.get("/metrics").body.decode()
    codes = gateway.opened("users", lambda: [gateway.client.get("/users").code for _ in range(6)])
    assert codes == ["users_unavailable"] * 5 + ["circuit_open"]
    log = gateway.log.read_text()
    assert log.index('"circuit_held_up"') < log.index('"circuit_free_again"')


def test_what_a_killed_process_counted_stays(gateway: GatewayProcess, users: ScriptedUpstream) -> None:
    all_pids = gateway.pids()
    with gateway.alone(all_pids[0]):
        for _ in range(3):
            gateway.client.get("/users")
    os.kill(all_pids[0], signal.SIGKILL)
    eventually(lambda: all_pids[0] not in (gateway.pids() or all_pids), what="the end of it")
    assert gateway.circuit("users")["calls"] == 3


def test_a_reload_replaces_every_process_and_keeps_the_state(gateway: GatewayProcess) -> None:
    gateway.force("users", "open")
    before = set(gateway.pids())
    gateway.process.send_signal(signal.SIGHUP)

    def replaced() -> bool:
        now = set(gateway.pids())
        return len(now) == PROCESSES and not now & before

    eventually(replaced, timeout=40, what="new processes")
    shown = circuit_of_each(gateway)
    assert [(one["state"], one["forced"]) for one in shown] == [("open", True)] * PROCESSES


def test_when_the_prober_is_killed_another_one_asks(gateway: GatewayProcess, users: ScriptedUpstream) -> None:
    users.stop()
    break_circuit(gateway)
    for pid in gateway.pids()[: PROCESSES - 1]:
        os.kill(pid, signal.SIGKILL)
    eventually(
        lambda: gateway.client.get("/users") and gateway.circuit("users")["last_probe"], timeout=30, what="a probe"
    )
    users.start()
    eventually(lambda: gateway.client.get("/users").status == 200, timeout=30, what="the circuit to heal")
    eventually(lambda: {one["state"] for one in circuit_of_each(gateway)} == {"closed"}, what="closed everywhere")
    eventually(lambda: len(gateway.pids()) == PROCESSES, timeout=30, what="new processes")


def test_metrics_count_what_every_process_did(gateway: GatewayProcess) -> None:
    line = 'siteworks_http_requests_total{method="GET",route="/users/{id}/details",service="api_gateway",status="404"} '

    def counted() -> list[str]:
        return [
            one.removeprefix(line) for one in gateway.client.get("/metrics").body.decode().splitlines() if line in one
        ]

    assert counted() == []
    gateway.upstreams["users"].script(bad(404, "user_not_found"))
    all_pids = gateway.pids()
    for number, pid in enumerate(all_pids, 1):
        with gateway.alone(pid):
            assert gateway.client.get("/users/1/details").status == 404
            # A process counts an answer after it has sent it.
            eventually(lambda number=number: counted() == [f"{number}.0"], what="the count")
    for pid in all_pids:
        with gateway.alone(pid):
            assert counted() == [f"{PROCESSES}.0"]


def test_metrics_of_one_process_alone_carry_its_id_and_those_of_circuits_do_not(gateway: GatewayProcess) -> None:
    all_pids = gateway.pids()
    with gateway.alone(all_pids[0]):
        text = gateway.client.get("/metrics").body.decode()
    assert 'siteworks_circuit_state{circuit="users",state="closed"} 1.0' in text
    assert f'siteworks_gateway_upstream_requests{{process="{all_pids[0]}",upstream="users"}}' in text
    names = [one.split()[2] for one in text.splitlines() if one.startswith("# TYPE")]
    assert len(names) == len(set(names))


def test_every_process_has_room_for_all_its_connections_before_they_come(gateway: GatewayProcess) -> None:
    # The kernel holds a process with threads up, for milliseconds, each time it has to make room.
    for pid in gateway.pids():
        room = re.search(r"^FDSize:\s+(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        assert room is not None
        limit, _ = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        assert int(room[1]) >= min(limit, 65_536) > 256
