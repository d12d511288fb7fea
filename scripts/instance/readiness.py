"""Whether the processes of a running instance are ready, and in their own words why one is not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from scripts.instance.credentials import Credentials
from scripts.instance.errors import StartFailed
from scripts.instance.layout import Layout
from scripts.instance.listening import Listening
from scripts.instance.ports import STORES, Ports
from scripts.instance.postgres import EmbeddedPostgres, last_lines
from scripts.instance.supervision import ProcessState, Supervisor
from servicekit.process.probe import problem_of

_LIMIT = 180.0  # seconds until everything that was started is ready
_TRIES = 3  # exits of one program until the start is given up
CANNOT_START = " cannot start: "  # in the last line of a process whose settings are wrong
_TAIL = 4000  # characters of a log in which that line is looked for


class Start:
    """The start of some services. Made before they are started, so that only what they log from then on counts."""

    def __init__(self, layout: Layout, ports: Ports, supervisor: Supervisor, services: Collection[str]) -> None:
        self._layout = layout
        self._ports = ports
        self._supervisor = supervisor
        self._services = services
        seen = supervisor.processes()
        # A broker elsewhere may be away.
        self._without = {"ingest"} if "rabbitmq" not in {process.service for process in seen} else set()
        self._exits: dict[str, set[float]] = {process.name: {process.stopped_at} for process in seen}
        self._logged = {process.name: _size(layout.log(process.name)) for process in seen}
        began = {process.name: self._logged[process.name] for process in seen if process.service in services}
        layout.log_sizes.write_text(json.dumps(_sizes_at_start(layout) | began))  # for `status`

    def require_nobody_failed(self) -> list[ProcessState]:
        """Return what supervisor says of them. Raises StartFailed, with the cause, if one of them cannot start."""
        seen = [process for process in self._supervisor.processes() if process.service in self._services]
        for process in seen:
            log = self._layout.log(process.name)
            said = _read(log, self._logged.get(process.name, 0))
            exits = self._exits.setdefault(process.name, {0})
            exits.add(process.stopped_at)
            cause = _own_words(said)
            if cause or len(exits) > _TRIES:
                raise StartFailed(f"{process.name} does not start: {cause or last_lines(said)} (log: {log})")
        return seen

    def missing(self) -> list[str]:
        """Return the names of those that are not ready yet. Raises StartFailed."""
        seen = self.require_nobody_failed()
        problems = problems_of(seen, self._layout, self._ports)
        may_be_away = [one.name for one in seen if one.service in self._without and one.state == "RUNNING"]
        return [name for name, problem in problems.items() if problem and name not in may_be_away]

    def wait(self, show: Callable[[list[str]], None] = lambda missing: None) -> None:
        """Return once all are ready; `show` is told who is missing whenever there are fewer. Raises StartFailed."""
        limit = time.monotonic() + _LIMIT
        fewest = len(self._logged) + 1
        while True:
            waiting_for = self.missing()
            if len(waiting_for) < fewest:
                fewest = len(waiting_for)
                show(waiting_for)
            if not waiting_for:
                return
            if time.monotonic() > limit:
                what = ", ".join(waiting_for)
                raise StartFailed(f"still waiting for {what} after {_LIMIT:.0f} s; the logs are in {self._layout.logs}")
            time.sleep(0.1)


def problems_of(processes: Sequence[ProcessState], layout: Layout, ports: Ports) -> dict[str, str | None]:
    """What keeps each process, by name, from being ready, or None. All are asked at once."""

    def problem(process: ProcessState) -> str | None:
        if process.state != "RUNNING":
            return process.state.lower()
        if process.service == "postgres":
            server = EmbeddedPostgres(layout.postgres, ports["postgres"], Credentials(layout.secrets)["postgres"])
            return None if server.accepts_connections() else "takes no connections"
        if process.service == "worker":
            # A connection to the database is the only outward sign of valid settings.
            return None if _is_connected_to(process.pid, ports["postgres"]) else "is not connected to the database"
        if process.service == "gateway":
            return problem_of(ports.base, host=Listening.of(layout).asked)
        return None if process.service in STORES else problem_of(ports[process.service])

    with ThreadPoolExecutor(max(1, len(processes))) as pool:
        return dict(zip([process.name for process in processes], pool.map(problem, processes), strict=True))


def cause_of(process: ProcessState, layout: Layout) -> str | None:
    """Why the process cannot start, if that is the last thing it logged since it was told to start."""
    if process.state in {"STOPPED", "STOPPING"}:
        return None
    log = layout.log(process.name)
    return _own_words(_read(log, max(_sizes_at_start(layout).get(process.name, 0), _size(log) - _TAIL)))


def _sizes_at_start(layout: Layout) -> dict[str, int]:
    try:
        return dict(json.loads(layout.log_sizes.read_text()))
    except (OSError, ValueError):
        return {}


def _own_words(said: str) -> str | None:
    found = [line for line in said.splitlines()[-20:] if CANNOT_START in line]
    return found[-1].partition(CANNOT_START)[2].strip() if found else None


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _read(log: Path, start: int) -> str:
    try:
        with log.open("rb") as file:
            file.seek(start if start <= _size(log) else 0)  # rotated meanwhile
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _is_connected_to(pid: int, port: int) -> bool:
    try:
        found = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False  # it has just ended; supervisor reports that
    return any(c.raddr and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED for c in found)
