"""Half-open: a few trials at a time over all processes, and every way in which a trial can end gives its place back."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.raw_http import RawAnswer, read_answer
from tests.support.upstream import Close, Pause, ScriptedUpstream, Wait, bad, good
from tests.support.waiting import eventually

PROCESSES = 2
GET = b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def _several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway") / "log", GATEWAY_PROCESSES=str(PROCESSES))
    yield process
    process.stop()


@pytest.fixture
def gateway(_several: GatewayProcess) -> GatewayProcess:
    eventually(lambda: len(_several.pids()) == PROCESSES, timeout=20, what="all processes")
    _several.reset()
    return _several


@pytest.fixture
def users(gateway: GatewayProcess) -> ScriptedUpstream:
    return gateway.upstreams["users"]


def half_open(gateway: GatewayProcess) -> None:
    """Break the circuit; its open time ends by itself. No probe closes it while it waits for a trial."""
    users = gateway.upstreams["users"]
    users.script_path("/readyz", bad(503, "not_ready"))
    users.script(b"nonsense\r\n\r\n")
    for _ in range(5):
        assert gateway.client.get("/users").code == "bad_upstream_answer"
    eventually(lambda: gateway.circuit("users")["state"] == "half_open", what="half-open")
    users.seen.clear()


@contextlib.contextmanager
def trials(gateway: GatewayProcess, count: int = 2) -> Iterator[list[socket.socket]]:
    """So many requests that are under way at the upstream."""
    users = gateway.upstreams["users"]
    already = len(users.requests())
    with contextlib.ExitStack() as stack:
        found = []
        for number in range(count):
            connection = stack.enter_context(gateway.client.connect())
            connection.sendall(GET)
            users.wait_for(already + number + 1)
            found.append(connection)
        yield found


def test_two_trials_run_at_a_time_and_all_others_are_refused_meanwhile(
    gateway: GatewayProcess, users: ScriptedUpstream
) -> None:
    half_open(gateway)
    go_on = threading.Event()
    users.script(Wait(go_on), good("healed"))
    answers: list[RawAnswer] = []

    def ask() -> None:
        answers.append(gateway.client.get("/users"))

    asking = [threading.Thread(target=ask) for _ in range(20)]
    for thread in asking:
        thread.start()
    try:
        # The trials hang, and so the eighteen did not wait for them.
        eventually(lambda: len(answers) == 18, what="the others to be refused")
        assert {(one.status, one.code) for one in answers} == {(503, "circuit_open")}
        assert all(int(one.value("Retry-After") or 0) >= 1 for one in answers)
        assert {one.value("Proxy-Status") for one in answers} == {
            'siteworks; error=destination_unavailable; next-hop=users; details="circuit open"'
        }
        assert len(users.requests()) == 2
    finally:
        go_on.set()
        for thread in asking:
            thread.join(20)
    assert sorted(one.status for one in answers) == [200, 200] + [503] * 18
    assert gateway.circuit("users")["state"] == "closed"


def test_an_open_circuit_refuses_while_the_prober_hangs(gateway: GatewayProcess, users: ScriptedUpstream) -> None:
    users.script_path("/readyz", Pause(10))
    users.script(Close())
    for _ in range(5):
        gateway.client.request("POST", "/users", b"{}")

    def refused_while_a_probe_hangs() -> bool:
        probes = len(users.requests("/readyz"))

        def a_probe_came() -> list[object]:
            # Read anew with each look: a probe that was under way when the first began is answered before the next.
            shown = gateway.circuit("users")
            # Only an open circuit is meant: one whose time was over opens again, for longer, with a failed trial.
            if shown["state"] == "half_open":
                gateway.client.request("POST", "/users", b"{}")
            return [shown["last_probe"]] if len(users.requests("/readyz")) > probes else []

        [before] = eventually(a_probe_came, timeout=20, what="a probe")
        seen = gateway.client.request("POST", "/users", b"{}")
        # The probe had no answer yet, or health would show it.
        unanswered = gateway.circuit("users")["last_probe"] == before
        return unanswered and seen.status == 503 and seen.code == "circuit_open"

    eventually(refused_while_a_probe_hangs, timeout=60, what="a refusal during a probe")


def test_clients_that_leave_give_their_trials_back(gateway: GatewayProcess, users: ScriptedUpstream) -> None:
    half_open(gateway)
    users.script(Pause(20))
    with trials(gateway):
        assert gateway.client.get("/users").code == "circuit_open"
    users.script(good("healed"))
    eventually(lambda: gateway.client.get("/users").status == 200, what="the next trial")
    assert gateway.circuit("users")["state"] == "closed"


def test_a_killed_process_gives_its_trials_back(gateway: GatewayProcess, users: ScriptedUpstream) -> None:
    half_open(gateway)
    users.script(Pause(20))
    first, second = gateway.pids()
    with gateway.alone(first), trials(gateway):
        assert gateway.client.get("/users").code == "circuit_open"
        os.kill(first, signal.SIGKILL)
    users.script(good("healed"))
    eventually(lambda: second in gateway.pids() and gateway.client.get("/users").status == 200, what="the next trial")
    assert gateway.circuit("users")["state"] == "closed"


@pytest.mark.parametrize("steps", [[b"HTTP/1.1 200 OK\r\nConte", Close()], [good("half")[:-3], Close()]])
def test_a_trial_that_breaks_gives_its_place_back_and_opens_it_again(
    gateway: GatewayProcess, users: ScriptedUpstream, steps: list[bytes]
) -> None:
    half_open(gateway)
    users.script(*steps)
    generation = int(str(gateway.circuit("users")["generation"]))
    assert gateway.client.get("/users").code == "bad_upstream_answer"
    # Open, or if its time is over already, ready for the next trial.
    shown = gateway.circuit("users")
    assert (shown["state"], shown["generation"]) in (("open", generation + 1), ("half_open", generation + 2))
    eventually(lambda: gateway.client.get("/users").code == "circuit_open", what="a refusal")
    users.script(good("healed"))
    eventually(lambda: gateway.client.get("/users").status == 200, what="the next trial")


def test_a_trial_that_says_nothing_about_the_service_gives_its_place_back(
    gateway: GatewayProcess, users: ScriptedUpstream
) -> None:
    half_open(gateway)
    users.script(Pause(20))
    for _ in range(3):
        assert gateway.client.get("/users", ("X-Request-Timeout-Ms", "100")).code == "deadline_exceeded"
    assert gateway.circuit("users")["state"] == "half_open"
    with trials(gateway):
        assert gateway.client.get("/users").code == "circuit_open"


def test_the_result_of_a_trial_that_comes_late_is_ignored(gateway: GatewayProcess, users: ScriptedUpstream) -> None:
    half_open(gateway)
    go_on = threading.Event()
    users.scripts([Wait(go_on), good("late")], [b"nonsense\r\n\r\n"])
    generation = int(str(gateway.circuit("users")["generation"]))
    with trials(gateway, 1) as (late,):
        assert gateway.client.get("/users").code == "bad_upstream_answer"
        go_on.set()
        assert read_answer(late).json["data"] == "late"
        shown = gateway.circuit("users")
        assert shown["state"] != "closed"
        # Nothing but its open time may have ended meanwhile.
        assert (shown["state"], shown["generation"]) in (("open", generation + 1), ("half_open", generation + 2))
