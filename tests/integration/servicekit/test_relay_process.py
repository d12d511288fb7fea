"""The relay and a receiver as processes of their own, killed without warning while events flow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import requests
from sqlalchemy import text

from servicekit.events import outbox
from servicekit.process.ids import new_id
from tests.support.events import TOKEN, user_deleted
from tests.support.ports import free_port, free_ports
from tests.support.upstream import ScriptedUpstream, good
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).resolve().parents[3]
_USERS = 300
_EVENTS = 5  # of each user, all of the type that orders and tasks hear; the first has an effect


class Processes:
    """The relay and the orders service, each started again as often as it is wanted."""

    def __init__(self, users_url: str, orders_url: str, **addresses: str) -> None:
        self.port = free_ports(2)
        token = {"INTERNAL_TOKEN": TOKEN, "LOG_LEVEL": "warning", "PATH": os.environ["PATH"]}
        self._plans = {
            "relay": (
                [sys.executable, "-m", "servicekit.events", "relay"],
                {
                    **token,
                    "USERS_DATABASE_URL": users_url,
                    "RELAY_BIND": f"127.0.0.1:{self.port}",
                    "ORDERS_URL": f"http://127.0.0.1:{self.port + 1}",
                    **addresses,
                },
            ),
            "orders": (
                [sys.executable, "-m", "servicekit.web.serve", "orders"],
                {**token, "ORDERS_DATABASE_URL": orders_url, "ORDERS_BIND": f"127.0.0.1:{self.port + 1}"},
            ),
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def plan(self, name: str, **settings: str) -> None:
        self._plans[name][1].update(settings)

    def start(self, name: str) -> None:
        command, environment = self._plans[name]
        self._running[name] = subprocess.Popen(command, cwd=CHECKOUT, env=environment, start_new_session=True)

    def kill(self, name: str) -> None:
        process = self._running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def end(self, name: str) -> int:
        self._running[name].terminate()
        return self.wait(name)

    def wait(self, name: str) -> int:
        status = self._running[name].wait(20)
        del self._running[name]
        return status

    def stop(self) -> None:
        for name in list(self._running):
            self.kill(name)

    def page(self, path: str) -> requests.Response | None:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=5)
        except requests.ConnectionError:
            return None


def inbox() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        upstream.script(good({"processed": 1, "duplicates": 0, "ignored": 0}))
        yield upstream


tasks = pytest.fixture(name="tasks")(inbox)
sites = pytest.fixture(name="sites")(inbox)


@pytest.fixture
def processes(users_database, orders_database, tasks, sites) -> Iterator[Processes]:
    made = Processes(users_database.url, orders_database.url, TASKS_URL=tasks.url, SITES_URL=sites.url)
    yield made
    made.stop()


def sql(database, statement: str, **parameters):
    with database.database.transaction() as session:
        result = session.execute(text(statement), parameters)
        return result.all() if result.returns_rows else []


def in_order_by_subject(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for subject, id in pairs:
        found[subject].append(id)
    return found


def test_every_event_has_its_effect_once_whoever_is_killed(processes, users_database, orders_database, tasks):
    users = [uuid4() for _ in range(_USERS)]
    with orders_database.database.transaction() as session:
        for user_id in users:
            session.execute(
                text(
                    "INSERT INTO orders (id, user_id, items, products_key, status, total_amount, created_at,"
                    " updated_at) VALUES (:id, :user, CAST(:items AS jsonb), 'nails', 'created', 2, now(), now())"
                ),
                {"id": new_id(), "user": user_id, "items": '[{"product": "nails", "quantity": 1, "price": 2}]'},
            )
    processes.start("orders")
    processes.start("relay")

    def cancelled() -> int:
        return int(sql(orders_database, "SELECT count(*) FROM orders WHERE status = 'cancelled'")[0][0])

    for round, start in enumerate(range(0, _USERS, 50)):
        for user_id in users[start : start + 50]:
            with users_database.database.transaction() as session:
                outbox.add_all(session, (user_deleted(user_id) for _ in range(_EVENTS)))
        eventually(lambda least=start: cancelled() > least, timeout=30, what="events flow")
        for name in (("relay",), ("orders",), ("relay", "orders"))[round % 3]:
            processes.kill(name)
            processes.start(name)
    eventually(lambda: cancelled() == _USERS, timeout=30, what="every order is cancelled")

    assert sql(orders_database, "SELECT count(*), count(DISTINCT subject) FROM outbox") == [(_USERS, _USERS)]
    eventually(lambda: sql(users_database, "SELECT count(*) FROM outbox_deliveries") == [(0,)], timeout=30)
    written = sql(users_database, "SELECT subject::text, id::text FROM outbox ORDER BY position")
    # A batch that was under way as the relay was killed came twice; what counts is an event's first time.
    first = {event["id"]: event["subject"] for seen in tasks.seen for event in json.loads(seen.body)}
    assert len(first) == len(written) == _USERS * _EVENTS
    assert in_order_by_subject((subject, id) for id, subject in first.items()) == in_order_by_subject(written)
    assert processes.end("relay") == 0


def test_a_relay_tells_how_it_is_and_a_second_one_stands_by(processes, users_database):
    processes.start("relay")
    live = eventually(lambda: processes.page("/livez"), what="the page is there")
    assert live.json() == {"success": True, "data": {"status": "alive", "service": "relay", "processes": 1}}
    assert processes.page("/readyz").status_code == 200
    eventually(
        lambda: 'siteworks_relay_active{service="users"} 1.0' in processes.page("/metrics").text, what="it is active"
    )
    eventually(lambda: 'pending_events{destination="orders",service="users"} 0.0' in processes.page("/metrics").text)
    assert processes.end("relay") == 0


def test_a_database_that_is_away_keeps_no_other_service_waiting_and_is_named(processes, users_database, tasks):
    processes.plan("relay", TASKS_DATABASE_URL=f"postgresql://u:p@127.0.0.1:{free_port()}/tasks")
    processes.start("relay")
    with users_database.database.transaction() as session:
        outbox.add_all(session, [user_deleted(uuid4())])

    eventually(lambda: tasks.seen, timeout=30, what="the event of users arrives")
    ready = processes.page("/readyz")
    assert ready.status_code == 503
    assert [detail["field"] for detail in ready.json()["error"]["details"]] == ["tasks_database"]
    page = processes.page("/metrics").text
    assert 'siteworks_relay_active{service="users"} 1.0' in page
    assert 'siteworks_relay_active{service="tasks"} 0.0' in page
    assert processes.end("relay") == 0


def test_a_service_whose_relay_dies_ends_the_process(processes, users_database, orders_database):
    processes.plan("relay", ORDERS_DATABASE_URL=orders_database.url)
    orders_database.administer("ALTER TABLE outbox RENAME COLUMN spread TO spread_away")
    processes.start("relay")
    try:
        assert processes.wait("relay") == 1
    finally:
        orders_database.administer("ALTER TABLE outbox RENAME COLUMN spread_away TO spread")


DATABASE = "postgresql://u:p@127.0.0.1:1/d"


@pytest.mark.parametrize(
    ("arguments", "environment", "complaint"),
    [
        (["relay"], {"USERS_DATABASE_URL": DATABASE}, "relay cannot start: INTERNAL_TOKEN is not set"),
        (["relay", "orders"], {"INTERNAL_TOKEN": TOKEN}, "relay cannot start: ORDERS_DATABASE_URL: is not set"),
        (
            ["relay"],
            {"INTERNAL_TOKEN": TOKEN},
            "relay cannot start: none of USERS_DATABASE_URL, ORDERS_DATABASE_URL, TASKS_DATABASE_URL,"
            " SITES_DATABASE_URL is set",
        ),
        (["redeliver", "tasks"], {"INTERNAL_TOKEN": TOKEN}, "relay cannot start: TASKS_DATABASE_URL: is not set"),
        (["relay", "toys"], {}, "there is no service toys; there are users, orders, tasks, sites"),
    ],
)
def test_what_is_missing_is_named_on_the_last_line(arguments, environment, complaint, tmp_path):
    done = run(*arguments, environment=environment, folder=tmp_path)

    assert done.returncode in (1, 2)
    assert complaint in done.stderr.splitlines()[-1].replace("settings: ", "")
    assert "Traceback" not in done.stderr


def run(*arguments: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "servicekit.events", *arguments],
        cwd=folder, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), **environment},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_events_that_were_given_up_wait_again_when_somebody_says_so(users_database, tmp_path):
    with users_database.database.transaction() as session:
        outbox.add_all(session, [user_deleted(uuid4())])
    sql(
        users_database,
        "INSERT INTO outbox_deliveries (position, destination, subject, refusals, refused_at, reason)"
        " SELECT position, 'orders', subject, 5, now(), 'no' FROM outbox",
    )

    environment = {"USERS_DATABASE_URL": users_database.url, "INTERNAL_TOKEN": TOKEN}
    done = run("redeliver", "users", environment=environment, folder=tmp_path)

    assert (done.returncode, done.stdout) == (0, "1 deliveries wait again\n"), done.stderr
    assert sql(users_database, "SELECT refused_at, refusals FROM outbox_deliveries") == [(None, 0)]
