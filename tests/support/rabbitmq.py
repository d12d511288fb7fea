"""A RabbitMQ that tests may kill: the installed server's programs, in a separate folder."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pika
import pytest

from scripts.instance.own_broker import OwnBroker
from scripts.instance.rabbitmq import installed
from tests.support.ports import free_ports

_POLICY = Path("/usr/sbin/policy-rc.d")


def programs() -> Path:
    """The installed server's programs, from Debian's package if it can be installed. Skips loudly otherwise."""
    with (Path(tempfile.gettempdir()) / "siteworks-tests-rabbitmq.lock").open("w") as lock:
        # Several test processes may install at once.
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


class PrivateBroker(OwnBroker):
    """One on free ports."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, free_ports(3), programs())

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl ARGUMENTS` and return its output."""
        return self.server.control(*arguments)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all its programs by SIGSTOP: connections stay open, and nothing answers."""
        self._signal_all(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal_all(signal.SIGCONT)

    def connect(self) -> pika.BlockingConnection:
        return pika.BlockingConnection(pika.URLParameters(self.url))
