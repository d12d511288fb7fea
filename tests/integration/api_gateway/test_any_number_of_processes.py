"""One, four or eight processes, some of them killed or all of them replaced: circuits come to the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.raw_http import RawAnswer
from tests.support.upstream import bad, good
from tests.support.waiting import eventually

FAILURE = bad(503, "database_unavailable")
#: Eight of ten fail, never five in a row.
MOSTLY_FAILING = [FAILURE if number % 5 else good({}) for number in range(100)]
THREE_OF_TEN_FAILING = [FAILURE if number % 10 in (0, 3, 6) else good({}) for number in range(100)]


@pytest.fixture(scope="module", params=[1, 4, pytest.param(8, marks=pytest.mark.big)])
def _several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway") / "log", GATEWAY_PROCESSES=str(request.param))
    eventually(lambda: len(process.pids()) == request.param, timeout=30, what="all processes")
    yield process
    process.stop()


@pytest.fixture
def gateway(_several: GatewayProcess) -> GatewayProcess:
    _several.reset()
    return _several


def nothing(gateway: GatewayProcess) -> None:
    """All goes well."""


def kill_one(gateway: GatewayProcess) -> None:
    before = gateway.pids()
    os.kill(before[0], signal.SIGKILL)

    def replaced() -> bool:
        now = gateway.pids()
        return len(now) == len(before) and before[0] not in now

    eventually(replaced, timeout=30, what="a new process")


def reload(gateway: GatewayProcess) -> None:
    before = gateway.pids()
    gateway.process.send_signal(signal.SIGHUP)

    def replaced() -> bool:
        now = gateway.pids()
        return len(now) == len(before) and not set(now) & set(before)

    eventually(replaced, timeout=60, what="new processes")


HAPPENINGS = pytest.mark.parametrize("happens", [nothing, kill_one, reload])
Happening = Callable[[GatewayProcess], None]


@HAPPENINGS
def test_at_80_percent_failing_the_twentieth_call_opens_it(gateway: GatewayProcess, happens: Happening) -> None:
    happens(gateway)
    users = gateway.upstreams["users"]

    def ask() -> list[RawAnswer]:
        users.seen.clear()
        users.scripts(*[[one] for one in MOSTLY_FAILING])
        return [gateway.client.get("/users") for _ in range(21)]

    *before, refused = gateway.opened("users", ask)
    assert [one.status for one in before].count(503) == 16
    assert refused.code == "circuit_open"
    assert len(users.requests()) == 20


@HAPPENINGS
def test_what_was_counted_before_counts(gateway: GatewayProcess, happens: Happening) -> None:
    """A row of failures has no time limit but the window's, so this is asked of the row."""
    gateway.upstreams["users"].script(FAILURE)
    for _ in range(4):
        gateway.client.get("/users")
    happens(gateway)
    assert gateway.circuit("users")["state"] == "closed"
    gateway.client.get("/users")
    assert gateway.circuit("users")["state"] != "closed"
    assert len(gateway.upstreams["users"].requests()) == 5


@HAPPENINGS
def test_at_30_percent_failing_it_stays_closed(gateway: GatewayProcess, happens: Happening) -> None:
    gateway.upstreams["users"].scripts(*[[one] for one in THREE_OF_TEN_FAILING])
    happens(gateway)
    assert [gateway.client.get("/users").status for _ in range(100)].count(503) == 30
    assert gateway.circuit("users")["state"] == "closed"


@HAPPENINGS
def test_an_open_circuit_stays_open_and_a_good_call_closes_it(gateway: GatewayProcess, happens: Happening) -> None:
    users = gateway.upstreams["users"]
    gateway.force("users", "open")
    generation = gateway.circuit("users")["generation"]
    happens(gateway)
    assert gateway.client.get("/users").code == "circuit_open"
    shown = gateway.circuit("users")
    assert (shown["state"], shown["forced"], shown["generation"]) == ("open", True, generation)
    gateway.force("users", "auto")
    users.script(FAILURE)
    for _ in range(5):
        gateway.client.get("/users")
    assert gateway.circuit("users")["state"] != "closed"
    users.script(good({}))
    eventually(lambda: gateway.client.get("/users").status == 200, what="a good call")
    assert gateway.circuit("users")["state"] == "closed"
