"""The system under test: an instance started by ./scripts/run, and its processes."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from scripts.instance.credentials import Credentials
from scripts.instance.errors import InstanceError
from scripts.instance.layout import CHECKOUT, Layout
from scripts.instance.ports import HOST, Ports
from scripts.instance.supervision import ProcessState, Supervisor

GATEWAY_PROCESSES = 2
TASK_WORKERS = 2
_START_SECONDS = 180
_MASTERS = ("gateway", "users", "orders", "tasks")


class Site:
    """One instance in a data folder and on ports of its own."""

    def __init__(self, data: Path, port: int) -> None:
        self.ports = Ports(port)
        self._layout = Layout.of(str(data))
        self._supervisor: Supervisor | None = None
        # Supervisor's connection carries one call at a time.
        self._calling = threading.Lock()

    def start(self, settings: Mapping[str, str]) -> None:
        """Start it and return when it is ready."""
        self._run("--port", str(self.ports.base), "--detach", "--workers", str(TASK_WORKERS), settings=settings)
        self._supervisor = Supervisor(self.ports, Credentials(self._layout.secrets)["supervisor"])

    def stop(self) -> None:
        if self._supervisor is not None:
            self._supervisor.close()
        self._run("stop")

    def _run(self, *arguments: str, settings: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "scripts.instance", "--data", str(self._layout.data), *arguments]
        done = subprocess.run(
            command,
            cwd=CHECKOUT,
            env={**os.environ, **(settings or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
        )
        if done.returncode:
            raise InstanceError(f"{done.stderr.strip() or done.stdout.strip()}")

    def programs(self) -> dict[str, ProcessState]:
        """Supervisor's programs by name: postgres, users, orders, tasks, gateway, worker-1, …"""
        assert self._supervisor is not None, "not started"
        with self._calling:
            return {process.name: process for process in self._supervisor.processes()}

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Every living process by the name of its part, eldest first, without PostgreSQL's children."""
        found: dict[str, list[psutil.Process]] = {}
        for name, program in self.programs().items():
            if program.state != "RUNNING":
                continue
            master = _process(program.pid)
            if master is None:
                continue
            if program.service in _MASTERS:
                found[f"{name} master"] = [master]
                found[f"{name} worker"] = _children(master)
            else:
                found.setdefault("task worker" if program.service == "worker" else name, []).append(master)
        return found

    def everything_runs(self) -> bool:
        """Whether every part has as many processes as it should."""
        running = self.processes()
        many = {"gateway worker": GATEWAY_PROCESSES, "task worker": TASK_WORKERS}
        names = (*(f"{name} {part}" for name in _MASTERS for part in ("master", "worker")), "task worker", "postgres")
        return all(len(running.get(name, ())) == many.get(name, 1) for name in names)

    def service_is_ready(self, name: str) -> bool:
        """Whether the service's /readyz answers 200."""
        status, _ = self._get(self.ports[name], "/readyz")
        return status == 200

    def circuits(self) -> dict[str, str]:
        """The state of each of the gateway's circuits; empty if it does not answer."""
        status, body = self._get(self.ports["gateway"], "/health")
        return {name: one["state"] for name, one in body["data"]["upstreams"].items()} if status == 200 else {}

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send one request to the gateway on a new connection: status (0: no answer) and JSON."""
        return self._get(self.ports["gateway"], path, method, body)

    @staticmethod
    def _get(port: int, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(HOST, port, timeout=10)
        try:
            sent = None if body is None else json.dumps(body).encode()
            connection.request(method, path, sent, {"Content-Type": "application/json"} if sent else {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            return 0, None
        finally:
            connection.close()


def backends(postgres: psutil.Process) -> list[psutil.Process]:
    """PostgreSQL's processes that serve a connection."""
    # Their command line names their client: "postgres: ROLE DATABASE HOST(PORT) …".
    return [child for child in _children(postgres) if f" {HOST}(" in _title(child)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _children(master: psutil.Process) -> list[psutil.Process]:
    try:
        return sorted(master.children(), key=lambda child: child.create_time())
    except psutil.NoSuchProcess:
        return []


def memory_of(process: psutil.Process) -> float | None:
    """Resident memory in MiB; None if the process has ended."""
    try:
        return float(process.memory_info().rss) / 1024**2
    except psutil.NoSuchProcess:
        return None
