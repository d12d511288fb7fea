"""SIGHUP and what is wrong then: whatever serves goes on to serve, and the log says what to mend."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.ports import free_port
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[3]
AWAY = "postgresql://u:secret@127.0.0.1:1/d"
#: Each program: its folder, its application, its address, and a value that it refuses.
SERVERS = {
    "gateway": ("api_gateway", "api_gateway.asgi:app", "GATEWAY_BIND", "GATEWAY_RATE_LIMIT=many"),
    "users": ("service_users", "service_users.wsgi:app", "USERS_BIND", "USERS_THREADS=0"),
    "orders": ("service_orders", "service_orders.wsgi:app", "ORDERS_BIND", "USERS_URL=nowhere"),
    "tasks": ("service_tasks", "service_tasks.wsgi:app", "TASKS_BIND", "TASK_EVENTS=all"),
    "events": ("service_tasks/events", "service_tasks.events.asgi:app", "EVENTS_BIND", "EVENTS_WATCHERS=x"),
}


class Program:
    """A process of ours with a folder and an `.env` of its own; every database is away."""

    def __init__(self, folder: Path, command: list[str], bind: str) -> None:
        self.folder = folder
        self.port = free_port()
        self._bind = bind
        self._log = folder / "log"
        self.write_env()
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=folder, env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{folder}"},
                stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        eventually(self.answers, timeout=30, what="it answers")

    def write_env(self, *lines: str) -> None:
        urls = [f"{name}_DATABASE_URL={AWAY}" for name in ("USERS", "ORDERS", "TASKS")]
        settings = [
            f"{self._bind}=127.0.0.1:{self.port}", *urls, "INTERNAL_TOKEN=for these tests only",
            "RABBITMQ_URL=amqp://guest:guest@127.0.0.1:1/", *lines,
        ]  # fmt: skip
        (self.folder / ".env").write_text("\n".join(settings))

    def answers(self, port: int | None = None) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=10)
        try:
            connection.request("GET", "/livez")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def pids(self) -> set[int]:
        return {child.pid for child in psutil.Process(self.process.pid).children()}

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def refusals(self) -> list[str]:
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line["cause"] for line in lines if line["event"] == "reload_refused"]

    def refuses(self, times: int = 1) -> str:
        eventually(lambda: len(self.refusals()) >= times, timeout=40, what=f"a refusal in {self._log.read_text()}")
        assert len(self.refusals()) == times
        return self.refusals()[-1]

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(40)
        finally:
            self.process.kill()


Start = Callable[[str], Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Program] = []

    def begin(name: str) -> Program:
        folder, app, bind, _ = SERVERS[name]
        command = ["gunicorn", "-c", str(ROOT / folder / "gunicorn.conf.py"), app]
        started.append(Program(tmp_path, command, bind))
        return started[-1]

    yield begin
    for one in started:
        one.stop()


@pytest.mark.parametrize("name", SERVERS)
def test_a_wrong_setting_at_a_reload_is_named_and_changes_nothing(start: Start, name: str) -> None:
    server = start(name)
    before = server.pids()
    wrong = SERVERS[name][-1]
    server.write_env(wrong)
    server.hang_up()
    cause = server.refuses()
    assert f"{wrong.partition('=')[0]}: " in cause
    assert "secret" not in cause
    assert server.pids() == before
    assert server.answers()

    server.write_env()
    server.hang_up()
    eventually(lambda: server.pids() and not server.pids() & before, timeout=40, what="new processes")
    eventually(server.answers, what="they answer")


def test_a_process_that_replaces_one_has_the_settings_of_the_others(start: Start) -> None:
    server = start("users")
    (worker,) = server.pids()
    server.write_env("USERS_THREADS=0")
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: worker not in server.pids() and server.answers(), timeout=30, what="another worker")


def test_task_types_that_cannot_be_read_at_a_reload_change_nothing(start: Start) -> None:
    server = start("tasks")
    before = server.pids()
    (server.folder / "broken_types.py").write_text("raise RuntimeError('half written')")
    server.write_env("TASK_MODULES=broken_types")
    server.hang_up()
    assert "broken_types" in server.refuses()
    assert server.pids() == before
    assert server.answers()


def test_a_reload_moves_to_a_new_address_and_stays_where_that_is_taken(start: Start) -> None:
    server = start("users")
    before = server.pids()
    old, new = server.port, free_port()
    with socket.create_server(("127.0.0.1", new)):
        server.port = new
        server.write_env()
        server.hang_up()
        assert server.refuses() == f"it cannot listen on 127.0.0.1:{new}: Address already in use"
        assert server.answers(old)
        assert server.pids() == before
    server.hang_up()
    eventually(server.answers, timeout=40, what="it answers at the new address")


@pytest.mark.parametrize("name", SERVERS)
def test_a_hangup_that_reaches_a_worker_ends_nothing(start: Start, name: str) -> None:
    server = start(name)
    (worker,) = server.pids()
    os.kill(worker, signal.SIGHUP)
    # The signal was delivered before this request was taken.
    assert server.answers()
    assert server.pids() == {worker}


@pytest.mark.parametrize(
    ("command", "bind"),
    [
        (("service_users.cli", "relay"), "USERS_RELAY_BIND"),
        (("service_tasks.cli", "ingest"), "INGEST_BIND"),
        (("service_tasks.cli", "worker"), "WORKER_BIND"),
    ],
)
def test_a_process_that_cannot_reload_says_so_and_goes_on(tmp_path: Path, command: tuple[str, str], bind: str) -> None:
    program = Program(tmp_path, list(command), bind)
    try:
        # The pages of a worker are there before it hears of signals; the other two hear before.
        eventually(lambda: _catches_hangups(program.process.pid), what="it hears")
        program.write_env("LOG_LEVEL=loud")
        program.hang_up()
        assert program.refuses() == "this process reads its settings when it starts: restart it"
        assert program.answers()
    finally:
        assert program.stop() == 0


def _catches_hangups(pid: int) -> bool:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) & 1 << signal.SIGHUP - 1)
