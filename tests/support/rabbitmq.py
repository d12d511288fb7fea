"""A RabbitMQ of one's own for the tests, which they may kill: the installed server's programs, in a folder apart."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pika
import pytest

from scripts.instance.rabbitmq import LocalRabbitMQ, installed
from tests.support.ports import free_ports
from tests.support.waiting import eventually

_START_SECONDS = 60
_POLICY = Path("/usr/sbin/policy-rc.d")


def programs() -> Path:
    """The installed server's programs; Debian's package is installed where we may. Skips, loudly, where we may not."""
    with (Path(tempfile.gettempdir()) / "siteworks-tests-rabbitmq.lock").open("w") as lock:
        # Several test processes would get into each other's way.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if installed() is None and os.geteuid() == 0 and shutil.which("apt-get"):
            _install()
    found = installed()
    if found is None:
        reason = "NOT TESTED: tasks from RabbitMQ. Install rabbitmq-server, or run the tests as root where apt-get is."
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def _install() -> None:
    """Install the package without letting it start a server."""
    ours = not _POLICY.exists()
    if ours:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        if _apt_get("install", "--yes", "--no-install-recommends", "rabbitmq-server").returncode:
            _apt_get("update")
            done = _apt_get("install", "--yes", "--no-install-recommends", "rabbitmq-server")
            assert done.returncode == 0, done.stdout[-2000:]
    finally:
        if ours:
            _POLICY.unlink()


def _apt_get(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )


class PrivateBroker:
    """Started, killed and started again at the same address; keeps its lasting queues."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = LocalRabbitMQ(folder, free_ports(3), programs())
        self.server.prepare()
        self.url = self.server.url
        self._process: subprocess.Popen[bytes] | None = None
        with (folder / "log").open("ab") as log:
            self._names = subprocess.Popen(
                self.server.name_server_command(), env=self.server.environment(), stdout=log, stderr=log
            )

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.server.command(),
                env=self.server.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(self._answers, timeout=_START_SECONDS, what="RabbitMQ takes connections")

    def kill(self) -> None:
        """End it with SIGKILL, as a power failure would."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        self._signal(signal.SIGTERM)
        self._names.kill()
        self._names.wait()

    def control(self, *arguments: str) -> str:
        """Do what `rabbitmqctl ARGUMENTS` does; gives what it says."""
        return self.server.control(*arguments)

    def connect(self) -> pika.BlockingConnection:
        return pika.BlockingConnection(pika.URLParameters(self.url))

    def _signal(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, number)
            process.wait(30)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
        try:
            self.connect().close()
        except (pika.exceptions.AMQPError, OSError):
            return False
        return True
