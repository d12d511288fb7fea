"""supervisor: its configuration, its process, and the calls made to it.

Its configuration holds no absolute path, and no secret but its own password: because that file expands `%`, cuts at
` ;` and ` #`, and unquotes commands, paths are passed as descriptors, relative names and one variable.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.instance.errors import InstanceError, StartFailed
from scripts.instance.layout import CHECKOUT, Layout
from scripts.instance.lock import InstanceLock
from scripts.instance.log_files import BACKUPS, MOST_BYTES
from scripts.instance.ports import HOST, Ports
from scripts.instance.postgres import last_lines_of
from scripts.instance.reclaim import MARK

if TYPE_CHECKING:
    from scripts.instance.programs import Program

_USER = "siteworks"
_LAUNCH_VARIABLE = "SITEWORKS_LAUNCH"
_STOPPED = {"STOPPED", "EXITED", "FATAL"}


def configuration(programs: Sequence[Program], port: int, password: str) -> str:
    """The text of run/supervisord.conf; every path in it is relative to the data folder."""
    sections = [
        "[supervisord]",
        "nodaemon = true",
        "silent = true",
        "logfile = logs/supervisor.log",
        "logfile_maxbytes = 10MB",
        "logfile_backups = 2",
        "pidfile = run/supervisord.pid",
        "childlogdir = logs",
        "umask = 077",
        *(["user = root"] if os.geteuid() == 0 else []),
        "",
        "[inet_http_server]",
        f"port = {HOST}:{port}",
        f"username = {_USER}",
        f"password = {password}",
        "",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
        "",
        "[rpcinterface:log_files]",
        "supervisor.rpcinterface_factory = scripts.instance.log_files:LogFiles",
        f"files = {' '.join(program.own_log for program in programs if program.own_log)}",
    ]
    for program in programs:
        sections += ["", *_program_section(program)]
    return "\n".join(sections) + "\n"


def _program_section(program: Program) -> list[str]:
    many = program.name == "worker"  # numbered even when there is only one, so that names do not depend on the count
    log = f"{program.name}-%(process_num)d" if many else program.name
    return [
        f"[program:{program.name}]",
        f"command = %(ENV_{_LAUNCH_VARIABLE})s {program.name}",
        *([f"process_name = {log}", f"numprocs = {program.copies}", "numprocs_start = 1"] if many else []),
        f"autostart = {str(program.autostart).lower()}",
        "autorestart = true",
        "startsecs = 1",
        "startretries = 1000000000",  # for ever; the pause grows by a second each time
        f"stopsignal = {program.stop_signal}",
        f"stopwaitsecs = {program.stop_seconds}",
        *(["killasgroup = true"] if program.name != "postgres" else []),
        f"priority = {program.priority}",
        "redirect_stderr = true",
        f"stdout_logfile = logs/{log}.log",
        # log_files.py rotates the logs that programs write themselves.
        f"stdout_logfile_maxbytes = {0 if program.own_log else MOST_BYTES}",
        f"stdout_logfile_backups = {0 if program.own_log else BACKUPS}",
    ]


def write_run_files(layout: Layout, programs: Sequence[Program], port: int, password: str) -> None:
    for program in programs:
        _write_private(layout.run / f"{program.name}.json", program.launch_file())
    _write_private(layout.run / "supervisord.conf", configuration(programs, port, password))


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def write_workers(layout: Layout, count: int) -> None:
    """Write another number of workers, for `reread`. Raises InstanceError if the instance was started without."""
    path = layout.run / "supervisord.conf"
    text = path.read_text(encoding="utf-8")
    if "[program:worker]" not in text:
        raise InstanceError("this instance was started without workers; stop it, and start it again with --workers")
    _write_private(path, re.sub(r"(?m)^numprocs = \d+$", f"numprocs = {count}", text))


def spawn(layout: Layout, lock: InstanceLock) -> subprocess.Popen[bytes]:
    """Start supervisor in a session of its own, holding the lock. Its postgres program starts at once."""
    launch = [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py"))]
    environment = {
        **os.environ,
        MARK: str(layout.data),
        _LAUNCH_VARIABLE: shlex.join(launch),
        "PYTHONPATH": str(CHECKOUT),  # it runs in the data folder
    }
    environment.pop("PYTHONHOME", None)
    with layout.log("supervisor-output").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "scripts.instance.supervisor_process", str(lock.descriptor)],
            cwd=layout.data,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(lock.descriptor,),
            start_new_session=True,
        )


@dataclass(frozen=True)
class ProcessState:
    """`service` is the name used in commands; `name` tells the workers apart."""

    service: str
    name: str
    state: str
    pid: int
    uptime: float
    stopped_at: float
    complaint: str

    @property
    def address(self) -> str:
        return f"{self.service}:{self.name}"


class _Transport(xmlrpc.client.Transport):
    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = super().make_connection(host)
        connection.timeout = 10
        return connection


class Supervisor:
    """Calls to a running supervisor. Raises InstanceError when it does not answer."""

    def __init__(self, ports: Ports, password: str) -> None:
        url = f"http://{_USER}:{password}@{HOST}:{ports['supervisor']}/RPC2"
        self._server = xmlrpc.client.ServerProxy(url, transport=_Transport())

    def _call(self, method: str, *arguments: object) -> Any:
        try:
            return getattr(self._server.supervisor, method)(*arguments)
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as exc:
            raise InstanceError(f"supervisor does not answer ({exc}); see its log in the data folder") from exc

    def close(self) -> None:
        """Close the kept connection; the next call opens another."""
        self._server("close")()

    def answers(self) -> bool:
        try:
            self._call("getState")
        except InstanceError:
            return False
        return True

    def processes(self) -> list[ProcessState]:
        return [
            ProcessState(
                service=info["group"],
                name=info["name"],
                state=info["statename"],
                pid=info["pid"],
                uptime=max(0, info["now"] - info["start"]) if info["pid"] else 0,
                stopped_at=info["stop"],
                complaint=info["spawnerr"],
            )
            for info in self._call("getAllProcessInfo")
        ]

    def start(self, services: Sequence[str]) -> None:
        """Start them without waiting. One that runs already is left alone."""
        for process in self.processes():
            if process.service in services and process.state == "BACKOFF":
                # Its next try may be minutes away.
                self._tolerantly("stopProcess", process.address, False)
            if process.service in services and process.state not in {"RUNNING", "STARTING", "STOPPING"}:
                self._tolerantly("startProcess", process.address, False)

    def stop(self, services: Sequence[str]) -> None:
        """Stop them all at once and wait until they are gone; supervisor kills any that exceeds its time."""
        for process in self.processes():
            if process.service in services and process.state not in _STOPPED:
                self._tolerantly("stopProcess", process.address, False)
        while self.alive(services):
            time.sleep(0.05)

    def alive(self, services: Sequence[str]) -> list[str]:
        return [p.name for p in self.processes() if p.service in services and p.state not in _STOPPED]

    def reread(self, service: str) -> None:
        """Take the program of a stopped service from the configuration again."""
        self._call("reloadConfig")
        self._call("removeProcessGroup", service)
        self._call("addProcessGroup", service)

    def shut_down(self) -> None:
        with contextlib.suppress(InstanceError):  # it may end before it answers
            self._call("shutdown")

    def _tolerantly(self, method: str, *arguments: object) -> None:
        # A process may have changed state since it was listed.
        with contextlib.suppress(xmlrpc.client.Fault):
            self._call(method, *arguments)


def wait_for_supervisor(supervisor: Supervisor, process: subprocess.Popen[bytes], layout: Layout) -> None:
    limit = time.monotonic() + 60
    while not supervisor.answers():
        if process.poll() is not None or time.monotonic() > limit:
            log = layout.log("supervisor-output")
            raise StartFailed(f"supervisor did not start: {last_lines_of(log)} (log: {log})")
        time.sleep(0.02)
