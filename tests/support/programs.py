"""Every program of Siteworks as a process with its own folder and `.env`; databases and brokers are away."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from servicekit.process.services import services
from tests.support.ports import free_port
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
AWAY = "postgresql://u:secret@127.0.0.1:1/d"


def _gunicorn(folder: str, app: str) -> list[str]:
    return ["gunicorn", "-c", str(ROOT / folder / "gunicorn.conf.py"), app]


#: Programs that reload: the command, the variable of the address, and a value that it refuses.
SERVERS = {
    "gateway": (_gunicorn("api_gateway", "api_gateway.asgi:app"), "GATEWAY_BIND", "GATEWAY_RATE_LIMIT=many"),
    "users": (["servicekit.web.serve", "users"], "USERS_BIND", "SERVICE_THREADS=0"),
    "orders": (["servicekit.web.serve", "orders"], "ORDERS_BIND", "USERS_URL=nowhere"),
    "sites": (["servicekit.web.serve", "sites"], "SITES_BIND", "SERVICE_THREADS=0"),
    "tasks": (["servicekit.web.serve", "tasks"], "TASKS_BIND", "TASK_EVENTS=all"),
    "events": (
        _gunicorn("service_tasks/streams", "service_tasks.streams.asgi:app"), "EVENTS_BIND", "EVENTS_WATCHERS=x"
    ),
}  # fmt: skip
#: Programs that only serve pages.
OTHERS = {
    "relay": (["servicekit.events", "relay"], "RELAY_BIND", "LOG_LEVEL=loud"),
    "ingest": (["service_tasks.cli", "ingest"], "INGEST_BIND", "LOG_LEVEL=loud"),
    "worker": (["service_tasks.cli", "worker"], "WORKER_BIND", "LOG_LEVEL=loud"),
}
PROGRAMS = {**SERVERS, **OTHERS}


class Program:
    """One of them; `lines` are added to what `.env` must have."""

    def __init__(self, folder: Path, name: str, *lines: str) -> None:
        command, self._bind, self.wrong = PROGRAMS[name]
        self.folder = folder
        self.port = free_port()
        self._log = folder / "log"
        self.write_env(*lines)
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=folder, env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{folder}"},
                stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            eventually(self.answers, timeout=30, what="it answers")
        except BaseException as error:
            # Nobody else could, and what is left running would fail the test that runs when it is collected.
            self.process.kill()
            self.process.wait()
            error.add_note(self._log.read_text())
            raise

    def write_env(self, *lines: str) -> None:
        urls = [f"{service.variable('DATABASE_URL')}={AWAY}" for service in services().values()]
        settings = [
            f"{self._bind}=127.0.0.1:{self.port}", *urls, "INTERNAL_TOKEN=for these tests only", "AUTH=off",
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
