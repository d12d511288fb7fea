"""Fault drills: each service in turn goes wrong in every way we know, and the rest does not notice.

While one service is at fault, a bystander uses all others without a pause; every answer it gets must be right. When
the fault ends, the service's routes answer again and its circuit closes, with nobody's help.
"""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts.instance.credentials import Credentials
from scripts.instance.layout import Layout
from tests.support.fault_proxy import Blame, Delay, Fail, FaultProxy, Garbage, Huge, Pass, Reset
from tests.support.frozen import freezing
from tests.support.gateway import ADMIN_TOKEN, UPSTREAMS, GatewayServer, circuit, force
from tests.support.postgres import read_only
from tests.support.raw_http import RawAnswer, RawClient
from tests.support.system import RunningSystem
from tests.support.waiting import eventually

pytestmark = pytest.mark.big

MINIMUM_CALLS = 20  # from which a rate decides
IN_A_ROW = 5  # failures that open a circuit while there are fewer calls than that

Check = Callable[[RawAnswer], bool]


@dataclass(frozen=True)
class Use:
    """Something the bystander does, and what it must get."""

    method: str
    target: str
    right: Check
    body: Callable[[], str] | None = None

    def of(self, client: RawClient) -> RawAnswer:
        if self.body is None:
            return client.request(self.method, self.target)
        fields = (("Content-Type", "application/json"),)
        return client.request(self.method, self.target, self.body().encode(), fields=fields)


@dataclass
class Site:
    """A running system, and a second gateway that reaches the same services through the fault proxies."""

    system: RunningSystem
    gateway: GatewayServer
    proxies: dict[str, FaultProxy]
    user: dict[str, Any]
    order: dict[str, Any]
    task: dict[str, Any]

    def reset(self) -> None:
        for proxy in self.proxies.values():
            proxy.fault = Pass()
        for client in (self.gateway.client, RawClient(self.system.port)):
            for name in UPSTREAMS:
                assert force(client, name, "auto").status == 200

    def item(self, name: str) -> str:
        """The path of something of this service that is there."""
        return {
            "users": f"/users/{self.user['id']}",
            "orders": f"/orders/{self.order['id']}",
            "tasks": f"/tasks/{self.task['id']}",
        }[name]

    def uses(self, *, without: str, users_gone: bool = False) -> list[Use]:
        """What others do meanwhile. `users_gone`: orders cannot reach users either, and must say so."""
        user, order = self.user["id"], f'{{"user_id": "{self.user["id"]}", "items": [{ITEM}]}}'
        uses = {
            "users": [
                Use("GET", self.item("users"), lambda answer: data(answer) == self.user),
                Use("GET", "/users?limit=5", lambda answer: len(data(answer)["users"]) > 0),
                Use("POST", "/users", created, new_user),
            ],
            "orders": [
                Use("GET", self.item("orders"), lambda answer: data(answer) == self.order),
                Use("GET", f"/orders?user_id={user}", lambda answer: data(answer)["total"] > 0),
                Use("POST", "/orders", refused(503, "users_unavailable") if users_gone else created, lambda: order),
            ],
            "tasks": [
                Use("GET", self.item("tasks"), lambda answer: data(answer)["id"] == self.task["id"]),
                Use("GET", "/task-types", lambda answer: answer.status == 200),
                Use("POST", "/tasks", created, lambda: "{}"),
            ],
        }
        own = [
            Use("GET", "/health", lambda answer: data(answer)["upstreams"].keys() == set(UPSTREAMS)),
            Use("GET", "/readyz", lambda answer: answer.status == 200),
            Use("GET", "/nothing-of-ours", refused(404, "not_found")),
        ]
        if without == "tasks":
            whole = Use("GET", f"/users/{user}/details", lambda answer: data(answer)["partial"] is False)
            own.append(whole)
        return [use for name in SERVICES if name != without for use in uses[name]] + own


#: Those that the drills break; event streams have a lane and tests of their own.
SERVICES = ("users", "orders", "tasks")
#: Processes without children.
SINGLE = ("worker-1", "relay")
ONE_OF_TWO = "one of two gateway processes"
#: What a pipe holds, in bytes, before its writer waits.
PIPE = 64 * 1024
ITEM = '{"product": "nails", "quantity": 3, "price": 1.25}'


def new_user() -> str:
    return f'{{"email": "{uuid.uuid4().hex}@example.com", "name": "Ngô Thị Thanh Hằng"}}'


def data(answer: RawAnswer) -> Any:
    assert answer.status == 200, answer
    assert answer.json["success"] is True
    return answer.json["data"]


def created(answer: RawAnswer) -> bool:
    return answer.status == 201 and answer.json["success"] is True


def refused(status: int, code: str) -> Check:
    return lambda answer: answer.status == status and answer.code == code


class Bystander:
    """Uses the healthy routes one after another, on a thread, until it is told to stop."""

    def __init__(self, client: RawClient, uses: list[Use]) -> None:
        self._client = client
        self._uses = uses
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.rounds = 0
        self.wrong: list[str] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped.is_set():
            for use in self._uses:
                if (trouble := self._trouble(use)) is not None:
                    self.wrong.append(trouble)
            self.rounds += 1

    def _trouble(self, use: Use) -> str | None:
        try:
            answer = use.of(self._client)
            enveloped = answer.json["success"] is (answer.status < 400) and answer.value("x-request-id")
            if enveloped and use.right(answer):
                return None
            return f"{use.method} {use.target}: {answer}"
        except (OSError, ValueError, KeyError, AssertionError) as error:
            return f"{use.method} {use.target}: {error!r}"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    running = RunningSystem(
        tmp_path_factory.mktemp("drills") / "data",
        environment={"GATEWAY_PROCESSES": "2", "ADMIN_TOKEN": ADMIN_TOKEN},
    )
    try:
        running.start("--workers", "1")
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def _site(system: RunningSystem, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    user = system.post("/users", {"email": f"{uuid.uuid4().hex}@example.com", "name": "Белов Ярослав"}).data
    items = [{"product": "Чокопай", "quantity": 10, "price": 52.00}]
    order = system.post("/orders", {"user_id": user["id"], "items": items}).data
    task = system.post("/tasks").data
    log = tmp_path_factory.mktemp("gateway") / "log"
    with ExitStack() as stack:
        proxies = {name: stack.enter_context(FaultProxy(system.port + 1 + at)) for at, name in enumerate(SERVICES)}
        urls = {name: proxy.url for name, proxy in proxies.items()}
        urls["events"] = f"http://127.0.0.1:{system.port + 4}"
        gateway = GatewayServer(Path(log), urls, GATEWAY_PROCESSES="2")
        stack.callback(gateway.stop)
        yield Site(system, gateway, proxies, user, order, task)


@pytest.fixture
def site(_site: Site) -> Site:
    """Nothing at fault, all circuits closed with nothing counted."""
    _site.reset()
    return _site


@pytest.fixture(params=SERVICES)
def broken(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def others_go_on(
    site: Site, client: RawClient, *, without: str, users_gone: bool = False, orders_created: bool = True
) -> Iterator[None]:
    """Insist that everything but one service is used with success meanwhile, from the fault's begin to its end."""
    uses = site.uses(without=without, users_gone=users_gone)
    if not orders_created:
        uses = [use for use in uses if not (use.target == "/orders" and use.body)]
    bystander = Bystander(client, uses)
    bystander.start()
    try:
        yield
        before = bystander.rounds
        eventually(lambda: bystander.rounds > before + 1, what="the bystander goes once more through everything")
    finally:
        bystander.stop()
    assert bystander.wrong == []


def states(client: RawClient) -> dict[str, Any]:
    shown = data(client.get("/health"))["upstreams"]
    return {name: one["state"] for name, one in shown.items()}


def opens(site: Site, client: RawClient, name: str, *, before: set[tuple[int, str]]) -> list[RawAnswer]:
    """Ask until the circuit is open; the answers until then, each of which must be one of `before`."""
    answers: list[RawAnswer] = []
    for _ in range(MINIMUM_CALLS + 1):
        answer = client.get(site.item(name))
        if answer.status == 503 and answer.code == "circuit_open":
            break
        assert (answer.status, "" if answer.status == 200 else answer.code) in before, answer
        answers.append(answer)
    else:
        pytest.fail(f"the circuit is not open after {len(answers)} calls")
    assert int(answer.value("retry-after") or 0) >= 1
    others = {other: "closed" for other in UPSTREAMS if other != name}
    seen = states(client)
    assert seen.pop(name) in {"open", "half_open"}
    assert seen == others
    return answers


def recovers(site: Site, client: RawClient, name: str) -> None:
    """Insist that the service's routes come back and stay, and that the circuit closes by itself."""
    eventually(lambda: client.get(site.item(name)).status == 200, timeout=30, what=f"{name} answers again")
    eventually(lambda: states(client)[name] == "closed", timeout=10, what=f"the circuit of {name} is closed")
    for _ in range(IN_A_ROW):
        assert client.get(site.item(name)).status == 200


def orders_are_taken_again(site: Site, client: RawClient) -> None:
    """Insist that the orders service finds users again, through a circuit of its own."""
    create = next(use for use in site.uses(without="users") if use.target == "/orders" and use.body)
    eventually(lambda: created(create.of(client)), timeout=30, what="orders reaches users again")


@contextmanager
def frozen(system: RunningSystem, name: str) -> Iterator[None]:
    """Stop every process of a service where it stands; of supervisor itself, nobody but that."""
    status = system.status()
    if name == "supervisor":
        pids = [psutil.Process(int(status["gateway"]["pid"])).ppid()]
    elif name == ONE_OF_TWO:
        pids = [psutil.Process(int(status["gateway"]["pid"])).children()[0].pid]
    else:
        master = psutil.Process(int(status[name]["pid"]))
        pids = [master.pid, *(child.pid for child in master.children(recursive=True))]
        assert name in SINGLE or len(pids) > 1, "a master alone"
    with freezing(pids):
        yield


def test_a_service_is_stopped(site: Site, broken: str) -> None:
    client = RawClient(site.system.port)
    site.system.cli("stop", broken)
    try:
        with others_go_on(site, client, without=broken, users_gone=broken == "users"):
            answers = opens(site, client, broken, before={(503, f"{broken}_unavailable")})
            if broken == "orders":
                details = data(client.get(f"/users/{site.user['id']}/details"))
                assert details["user"] == site.user
                assert details["missing"]["orders"]["code"] in {"circuit_open", "orders_unavailable"}
    finally:
        site.system.cli("start", broken)

    assert len(answers) == IN_A_ROW
    recovers(site, client, broken)
    if broken == "users":
        orders_are_taken_again(site, client)


def test_a_service_is_frozen(site: Site, broken: str) -> None:
    client = RawClient(site.system.port)
    order = next(use for use in site.uses(without="", users_gone=True) if use.target == "/orders" and use.body)
    with (
        frozen(site.system, broken),
        others_go_on(site, client, without=broken, orders_created=broken != "users"),
        ThreadPoolExecutor(IN_A_ROW + 1) as pool,
    ):
        asked = [pool.submit(client.get, site.item(broken)) for _ in range(IN_A_ROW)]
        ordered = pool.submit(order.of, client) if broken == "users" else None
        answers = [one.result() for one in asked]
        assert states(client)[broken] != "closed"
        # Whoever looks late may meet a trial.
        opens(site, client, broken, before={(504, "deadline_exceeded")})
        assert ordered is None or order.right(ordered.result()), "orders says that it cannot ask users"

    assert [(answer.status, answer.code) for answer in answers] == [(504, "deadline_exceeded")] * IN_A_ROW
    recovers(site, client, broken)
    if broken == "users":
        orders_are_taken_again(site, client)


@pytest.mark.parametrize("neighbour", [*SINGLE, "events", ONE_OF_TWO])
def test_somebody_whom_no_request_needs_is_frozen(site: Site, neighbour: str) -> None:
    client = RawClient(site.system.port)
    with frozen(site.system, neighbour), others_go_on(site, client, without=""):
        pass


def test_supervisor_is_frozen_and_nobody_waits_for_the_reader_of_the_logs(site: Site) -> None:
    client = RawClient(site.system.port)
    logs = {name: site.system.data / "logs" / f"{name}.log" for name in ("postgres", "gateway", *SERVICES)}
    long_lines = ("X-Request-ID", "i" * 128)

    def grown(name: str) -> int:
        return logs[name].stat().st_size - before[name]

    def let_postgresql_log() -> None:
        with socket.create_connection(("127.0.0.1", site.system.port + 5)) as stranger:
            stranger.sendall(b"no greeting")
            assert stranger.recv(1) == b""

    def use_everything(_: int) -> set[int]:
        for _ in range(10):
            let_postgresql_log()
        return {client.get(site.item(name), long_lines).status for name in SERVICES}

    lines = 0
    with frozen(site.system, "supervisor"):
        before = {name: log.stat().st_size for name, log in logs.items()}
        with others_go_on(site, client, without=""), ThreadPoolExecutor(4) as pool:
            while min(lines * len(long_lines[1]), grown("postgres") or PIPE * 5 // 4) < PIPE * 5 // 4:
                assert set().union(*pool.map(use_everything, range(20))) == {200}
                lines += 20
        assert grown("postgres") > PIPE, "it writes its log itself"
        assert grown("gateway") == 0, "nobody reads"

    for name in ("gateway", *SERVICES):
        eventually(
            lambda name=name: logs[name].read_text().count(long_lines[1]) >= lines,
            what=f"every line of {name} is in its log",
        )
    assert not [name for name, log in logs.items() if "log_lines_dropped" in log.read_text()]


def test_postgresql_is_frozen_and_everybody_says_so_in_time(site: Site) -> None:
    client = RawClient(site.system.port)
    pids = {name: process["pid"] for name, process in site.system.status().items()}
    with frozen(site.system, "postgres"), ThreadPoolExecutor(2 * len(SERVICES)) as pool:
        answers = list(pool.map(client.get, [site.item(name) for name in SERVICES] * 2))
        assert {answer.status for answer in answers} <= {503, 504}, answers
        assert client.get("/readyz").status == 200
        assert client.get("/nothing-of-ours").code == "not_found"

    for name in SERVICES:
        recovers(site, client, name)
    assert {name: process["pid"] for name, process in site.system.status().items()} == pids, "nobody has died of it"


def test_the_database_turns_read_only_and_what_was_begun_is_written_once_it_takes_writes_again(site: Site) -> None:
    system, client = site.system, RawClient(site.system.port)
    superuser = Credentials(Layout.of(system.data).secrets)["postgres"]
    pids = {name: process["pid"] for name, process in system.status().items()}
    user = system.post("/users", {"email": f"{uuid.uuid4().hex}@example.com", "name": "Ada"}).data
    order = {"user_id": user["id"], "items": [{"product": "nails", "quantity": 1, "price": 1.25}]}
    order = system.post("/orders", order).data
    task = system.post("/tasks", {"task_type": "io", "payload": {"seconds": 2}}).data
    began = time.monotonic()
    system.wait_for_task(task["id"], "processing")
    writes = [
        ("DELETE", f"/users/{user['id']}", b"", ()),
        ("POST", "/orders", f'{{"user_id": "{user["id"]}", "items": [{ITEM}]}}'.encode(), ()),
        ("POST", "/tasks", b"{}", (("Idempotency-Key", uuid.uuid4().hex),)),
    ]

    with read_only(f"postgresql://postgres:{superuser}@127.0.0.1:{system.port + 5}/postgres"):
        for method, target, body, fields in writes:
            answer = client.request(method, target, body, fields=(("Content-Type", "application/json"), *fields))
            assert refused(503, "database_unavailable")(answer), answer
            assert answer.value("retry-after") == "1"
        reads = ("/users", "/orders", "/tasks", "/tasks/stats", "/schedules", *map(site.item, SERVICES))
        for target in reads:
            assert client.get(target).status == 200, f"{target} is read as before"
        eventually(lambda: time.monotonic() - began > 4, what="the task has ended")
        assert data(client.get(f"/tasks/{task['id']}"))["status"] == "processing", "and nobody could write that"

    assert system.wait_for_task(task["id"], "completed")["attempts"] == 1
    assert system.request("DELETE", f"/users/{user['id']}").status == 200
    eventually(
        lambda: data(client.get(f"/orders/{order['id']}"))["status"] == "cancelled",
        timeout=20,
        what="the relay delivers again",
    )
    assert {name: process["pid"] for name, process in system.status().items()} == pids, "nobody has died of it"


def test_a_service_is_slow(site: Site, broken: str) -> None:
    client = site.gateway.client
    site.proxies[broken].fault = Delay(3)
    with others_go_on(site, client, without=broken):
        with ThreadPoolExecutor(MINIMUM_CALLS) as pool:
            answers = list(pool.map(client.get, [site.item(broken)] * MINIMUM_CALLS))
        assert {answer.status for answer in answers} == {200}, "slow, but in time"
        assert states(client)[broken] != "closed"
        opens(site, client, broken, before={(200, "")})
    site.proxies[broken].fault = Pass()

    recovers(site, client, broken)


def test_three_of_ten_calls_fail_and_the_circuit_stays_closed(site: Site, broken: str) -> None:
    client = site.gateway.client
    proxy = site.proxies[broken]
    proxy.fault = Fail(3, of=10)
    calls = 200
    with others_go_on(site, client, without=broken), ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(client.get, [site.item(broken)] * calls))
        shown = circuit(client, broken)

    assert proxy.asked == calls, "every call reached the service"
    assert sorted(answer.status for answer in answers) == [200] * 140 + [503] * 60
    assert {answer.code for answer in answers if answer.status == 503} == {"database_unavailable"}
    assert shown["state"] == "closed"
    assert shown["opened_at"] is None
    proxy.fault = Pass()
    recovers(site, client, broken)


def test_eight_of_ten_calls_fail_and_the_circuit_opens_within_twenty(site: Site, broken: str) -> None:
    client = site.gateway.client
    proxy = site.proxies[broken]
    proxy.fault = Fail(8, of=10)
    with others_go_on(site, client, without=broken):
        answers = opens(site, client, broken, before={(200, ""), (503, "database_unavailable")})
    proxy.fault = Pass()

    assert len(answers) <= MINIMUM_CALLS
    expected = [503 if Fail(8, of=10).hits(number) else 200 for number in range(len(answers))]
    assert [answer.status for answer in answers] == expected, "no row of five, so the rate opened it"
    recovers(site, client, broken)


@pytest.mark.parametrize("fault", [Reset(), Garbage(), Huge(100_000_000)], ids=["resets", "garbage", "100 MB"])
def test_a_service_answers_what_cannot_be_used(site: Site, broken: str, fault: Reset | Garbage | Huge) -> None:
    client = site.gateway.client
    site.proxies[broken].fault = fault
    with others_go_on(site, client, without=broken):
        answers = opens(site, client, broken, before={(502, "bad_upstream_answer")})
    site.proxies[broken].fault = Pass()

    assert len(answers) == IN_A_ROW
    recovers(site, client, broken)


def test_a_service_blames_its_own_dependency_and_the_circuit_stays_closed(site: Site, broken: str) -> None:
    client = site.gateway.client
    blamed = "orders_unavailable" if broken == "users" else "users_unavailable"
    site.proxies[broken].fault = Blame(blamed)
    with others_go_on(site, client, without=broken):
        answers = [client.get(site.item(broken)) for _ in range(2 * MINIMUM_CALLS)]
        assert states(client) == dict.fromkeys(UPSTREAMS, "closed")
    site.proxies[broken].fault = Pass()

    assert [(answer.status, answer.code) for answer in answers] == [(503, blamed)] * (2 * MINIMUM_CALLS)
    assert client.get(site.item(broken)).status == 200, "at once, because the circuit never opened"
