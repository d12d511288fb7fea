"""A whole running system for the end-to-end tests: started, used and stopped as a user does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from scripts.instance.credentials import Credentials
from scripts.instance.layout import Layout
from scripts.instance.ports import Ports, row_length
from scripts.instance.supervision import ProcessState, Supervisor
from tests.support.ports import free_ports
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Reply:
    """An answer: its status, header fields and JSON."""

    status: int
    headers: requests.structures.CaseInsensitiveDict[str]
    body: Any
    seconds: float

    @property
    def data(self) -> Any:
        """The data of a successful answer."""
        assert self.body["success"] is True, self.body
        return self.body["data"]

    @property
    def error(self) -> dict[str, Any]:
        """The error of a failed answer."""
        assert self.body["success"] is False, self.body
        return self.body["error"]

    @property
    def fields(self) -> list[str]:
        """The fields that the error names."""
        return [detail["field"] for detail in self.error.get("details", [])]


class RunningSystem:
    """One instance in its own data folder."""

    def __init__(
        self,
        data: Path,
        *,
        environment: dict[str, str] | None = None,
        command: Sequence[str | Path] = (sys.executable, "-m", "scripts.instance"),
    ) -> None:
        """`command` is what `./scripts/run` executes, here or in another checkout."""
        self.data = data
        self.port = free_ports(row_length())
        self._command = command
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {**os.environ, **(environment or {})}
        self._session = requests.Session()
        self._session.trust_env = False
        self._left_behind: dict[int, list[psutil.Process]] = {}
        #: By all commands.
        self.printed = ""

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `./scripts/run ARGUMENTS` in the tests' Python environment."""
        done = subprocess.run(
            [*self._command, "--data", str(self.data), *arguments],
            cwd=CHECKOUT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        self.printed += done.stdout + done.stderr
        if check:
            assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def start(self, *options: str) -> None:
        """Start everything; return once it is ready."""
        self.cli("--port", str(self.port), "--detach", *options)

    def stop(self) -> None:
        """Stop everything."""
        self._session.close()
        self.cli("stop")

    def status(self) -> dict[str, dict[str, Any]]:
        """Each process's state and pid by name, from `status --json`."""
        told = json.loads(self.cli("status", "--json", check=False).stdout)
        return {process["name"]: process for process in told["services"]}

    def processes(self) -> dict[str, ProcessState]:
        """What its supervisor says of each process, by name: sooner than `status`, which also asks each of them."""
        supervisor = Supervisor(Ports(self.port), Credentials(Layout(self.data).secrets)["supervisor"])
        try:
            return {process.name: process for process in supervisor.processes()}
        finally:
            supervisor.close()

    def kill(self, name: str) -> int:
        """Kill a process with SIGKILL; return its pid."""
        pid = self.processes()[name].pid
        self.kill_pid(pid)
        return pid

    def kill_pid(self, pid: int) -> None:
        """Kill a process with SIGKILL by its pid."""
        self._left_behind[pid] = psutil.Process(pid).children()
        os.kill(pid, signal.SIGKILL)

    def wait_until_replaced(self, name: str, pid: int, *, timeout: float = 30) -> int:
        """Wait until a process runs again under another pid; return that.

        The children of a killed process may answer for a moment longer. This waits for their end, so that later
        requests reach the new process.
        """

        def replaced() -> int:
            seen = self.processes()[name]
            return seen.pid if seen.state == "RUNNING" and seen.pid != pid else 0

        _, alive = psutil.wait_procs(self._left_behind.pop(pid, []), timeout=timeout)
        assert not alive, f"the killed {name} left {alive} behind"
        return eventually(replaced, timeout=timeout, what=f"{name} runs again")

    def request(
        self,
        method: str,
        path: str,
        json_body: Any = None,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Send one request to the gateway."""
        fields = {"Content-Type": "application/json"} if json_body is not None or content is not None else {}
        answer = self._session.request(
            method,
            self.url + path,
            data=content if json_body is None else json.dumps(json_body).encode(),
            headers={**fields, **(headers or {})},
            timeout=30,
            allow_redirects=False,
        )
        return Reply(
            answer.status_code,
            answer.headers,
            answer.json() if answer.content else None,
            answer.elapsed.total_seconds(),
        )

    def forget_cookies(self) -> None:
        """Be a client that was given none."""
        self._session.cookies.clear()

    def get(self, path: str, **options: Any) -> Reply:
        """GET a path."""
        return self.request("GET", path, **options)

    def post(self, path: str, json_body: Any = None, **options: Any) -> Reply:
        """POST to a path."""
        return self.request("POST", path, json_body, **options)

    def put(self, path: str, json_body: Any = None, **options: Any) -> Reply:
        """PUT to a path."""
        return self.request("PUT", path, json_body, **options)

    def delete(self, path: str, **options: Any) -> Reply:
        """DELETE a path."""
        return self.request("DELETE", path, **options)

    def wait_for_task(self, task_id: str, *statuses: str, timeout: float = 30) -> dict[str, Any]:
        """Wait until a task has one of the statuses; return it."""

        def there() -> dict[str, Any] | None:
            task: dict[str, Any] = self.get(f"/tasks/{task_id}").data
            return task if task["status"] in statuses else None

        found = eventually(there, timeout=timeout, what=f"task {task_id} is {statuses}")
        assert found is not None
        return found
