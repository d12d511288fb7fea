"""A RabbitMQ of a benchmark's own: the installed server's programs, as `./scripts/run --rabbitmq` starts them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.installing import Missing
from benchmarks.processes import Process, cpu_seconds
from benchmarks.report import CHECKOUT
from scripts.instance.errors import InstanceError
from scripts.instance.ports import free_base
from scripts.instance.rabbitmq import LocalRabbitMQ, installed

# Erlang alone takes ten seconds to start on a machine with other work.
_START_SECONDS = 90.0
_PROGRAM = "scripts.instance.rabbitmq_process"


class Broker:
    """One broker with its files in `folder`; messages and queues that last are written with fsync, as ever."""

    def __init__(self, folder: Path) -> None:
        programs = installed()
        if programs is None:
            raise Missing("needs an installed rabbitmq-server")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._server = LocalRabbitMQ(folder, free_base(), programs)
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return self._server.url

    def start(self) -> None:
        """Raises Missing when its programs do not run."""
        try:
            self._server.prepare()
            self._process = Process(
                [sys.executable, "-P", "-m", _PROGRAM, str(self._folder), str(self._server.port)],
                port=self._server.port,
                output=self._folder / "broker.log",
                on=None,
                cwd=CHECKOUT,
                environment={"PYTHONPATH": str(CHECKOUT)},
                start_seconds=_START_SECONDS,
            )
        except (InstanceError, RuntimeError, OSError, subprocess.SubprocessError) as error:
            self.stop()
            raise Missing(f"RabbitMQ does not start: {str(error).strip().splitlines()[-1]}") from error
        until = time.monotonic() + _START_SECONDS
        while not self._server.accepts():
            if time.monotonic() > until:
                self.stop()
                raise Missing("RabbitMQ does not greet its clients")
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def cpu_seconds(self) -> float:
        """CPU time of the server so far."""
        if self._process is None:
            return 0.0
        return cpu_seconds(self._process.pid)

    def version(self) -> str:
        """As the server tells it."""
        return self._server.control("version").strip().splitlines()[-1]
